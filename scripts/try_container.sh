#!/usr/bin/env bash
# Build HERO's image and run in it the steps of the user guide, on a tiny synthetic corpus:
# preprocessing, training on two ranks, evaluation, captions (with METEOR, so Java).
#
#   bash scripts/try_container.sh [FOLDER]        # an empty folder for data and runs; default: a new one
#
# Engine, image and options of the build: scripts/container.sh. On a machine without GPUs:
#
#   HERO_IMAGE=hero:cpu HERO_BUILD_OPTIONS="--build-arg BASE=docker.io/debian:bookworm-slim" \
#       bash scripts/try_container.sh
#
# Where containers cannot be isolated, as within one, Debian's buildah builds and runs with a chroot
# (HERO_CONTAINER_ENGINE=buildah, as root). Mount settings of package managers (certificates, mirrors)
# for the build: HERO_BUILD_OPTIONS="… --volume /etc/pip.conf:/etc/pip.conf:ro".
set -euo pipefail
REPO="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$REPO/scripts/container.sh"

data="${1:-$(mktemp -d)}"
mkdir -p "$data"
[ -z "$(ls -A "$data")" ] || fail "$data is not empty"
mkdir "$data"/{txt_db,video_db,finetune,pretrained}

launch() { # [--prepro] -- COMMAND…
    local words=("$@")
    [ "$1" != --prepro ] || words=("${@:2}")
    printf '\n# %s\n' "${words[*]:1}"
    bash "$REPO/launch_container.sh" "$data"/{txt_db,video_db,finetune,pretrained} "$@"
}

# Options that shorten the recipes.
small=(--model_config config/hero_debug.json --checkpoint null --num_train_steps 8 --warmup_steps 1
    --valid_steps 8 --train_batch_size 8 --num_gpus_of_recipe 2)
databases=(--sub_txt_db /txt/tv_subtitles.db --vfeat_db /video/tv)

launch -- python scripts/make_demo_data.py --output /storage/raw --size tiny --datasets tv
launch --prepro -- python scripts/collect_video_feature_paths.py \
    --feature_dir /storage/raw/features/tv --output /video --dataset tv
launch --prepro -- python scripts/convert_videodb.py --frame_length 1.5 --dataset tv \
    --vfeat_info_file /video/tv/video_feat_info.pkl --output /video
launch --prepro -- env HERO_TOKER=/storage/raw/toker bash scripts/create_txtdb.sh /txt /storage/raw/ann
launch --prepro -- env HERO_TOKER=/storage/raw/toker bash scripts/prepro_tvc.sh /txt /storage/raw/ann
launch -- horovodrun -np 2 python train_vcmr.py --config config/train-tvr-8gpu.json "${small[@]}"
launch -- horovodrun -np 2 python eval_vcmr.py --query_txt_db /txt/tvr_val.db/ --split val \
    "${databases[@]}" --output_dir /storage/tvr_default/ --checkpoint 8 --pin_mem
launch -- torchrun --nproc-per-node 2 train_tvc.py --config config/train-tvc-8gpu.json "${small[@]}" \
    --model_config config/hero_debug_tvc.json
launch -- python inf_tvc.py --model_dir /storage/tvc_default --ckpt_step 8 \
    --target_clip /txt/tvc_val_release.jsonl --output /storage/captions.jsonl

results="$data/finetune/tvr_default/results_val"
for file in "$results/results_8_all.json" "$results/metrics_8.json" "$data/finetune/captions.jsonl"; do
    [ -s "$file" ] || fail "$file is missing"
    [ -O "$file" ] || fail "$file does not belong to $(id -un)"
done
printf '\nThe container works: %s\n' "$data"
