#!/usr/bin/env bash
# Prepare the query and subtitle databases of all annotation files in a folder.
#
#   bash scripts/create_txtdb.sh TXT_DB_DIR ANN_DIR
#
# Files that are not in ANN_DIR are passed over. TVC: see scripts/prepro_tvc.sh.
#
# Queries: TXT_DB_DIR/<task>_<split>.db, <split> = train val test test_public test_private, from
#   <task>_<split>.jsonl or <task>_<split>_release.jsonl
#                                  <task> = tvr how2r tvqa how2qa violin didemo msrvtt
#   how2R_<split>_release.csv, how2QA_<split>_release.csv, <split>_data.json
#                                  How2R, How2QA and DiDeMo as published; TXT_DB_DIR/ann keeps
#                                  the JSON lines made of them
#   A TVR test split takes its videos from tv_vid2dur_idx.json (see below).
#
# Subtitles: TXT_DB_DIR/<corpus>_subtitles.db, <corpus> = tv how2 violin didemo msrvtt, from
#   <corpus>_subtitles.jsonl       tv also: tvqa_preprocessed_subtitles.jsonl
#   <corpus>_vid2nframe.json       {video: frames}, the id2nframe.json of the video database
#   <corpus>_vid2dur_idx.json      {split: {video: [seconds, index]}}, optional; tv also:
#                                  vid2dur_idx.json, tvr_video2dur_idx.json
#   A frame takes 1.5 seconds (how2, msrvtt: 2).
#
# Environment:
#   HERO_TOKER    tokenizer: hub name or local folder (default: roberta-base)
#   HERO_WORKERS  processes (default: one per core, at most 8)
#   HERO_DOCKER   1: run in the Docker image HERO_IMAGE (default: hero:1.0)
#   PYTHON        interpreter (default: python)
set -euo pipefail
REPO=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")
source "$REPO/scripts/txtdb.sh"

vid2dur_idx() {
    if [[ $1 == tv ]]; then
        first_of tv_vid2dur_idx.json vid2dur_idx.json tvr_video2dur_idx.json
    else
        first_of "$1_vid2dur_idx.json"
    fi
}

# prepare_subtitles CORPUS SECONDS_PER_FRAME [OTHER_NAMES…]
prepare_subtitles() {
    local corpus=$1 seconds=$2 subtitles vid2nframe durations=() path
    shift 2
    subtitles=$(first_of "${corpus}_subtitles.jsonl" "$@") || return 0
    vid2nframe=$(first_of "${corpus}_vid2nframe.json") ||
        fail "$subtitles needs ${corpus}_vid2nframe.json beside it: copy the id2nframe.json of" \
            "video_db/$corpus"
    if path=$(vid2dur_idx "$corpus"); then
        durations=(--vid2dur_idx "$path")
    fi
    prepare "${corpus}_subtitles.db" prepro_sub.py --task "$corpus" --annotation "$subtitles" \
        --vid2nframe "$vid2nframe" --frame_length "$seconds" ${durations[@]+"${durations[@]}"}
}

# convert TASK SPLIT PUBLISHED: make TXT_DB_DIR/ann/<task>_<split>.jsonl of a file published otherwise.
convert() {
    local published lines=$TXT/ann/$1_$2.jsonl
    published=$(first_of "$3") || return 0
    if [[ ! $lines -nt $published ]]; then
        "$PYTHON" "$REPO/scripts/convert_annotations.py" --task "$1" --annotation "$published" \
            --output "$lines"
    fi
}

# prepare_queries TASK SPLIT
prepare_queries() {
    local task=$1 split=$2 annotation=$TXT/ann/$1_$2.jsonl videos=() path
    if [[ ! -f $annotation ]]; then
        annotation=$(first_of "${task}_$split.jsonl" "${task}_${split}_release.jsonl") || return 0
    fi
    if [[ $task == tvr && $split == test* ]] && path=$(vid2dur_idx tv); then
        videos=(--vid2dur_idx "$path" --split "$split")
    fi
    prepare "${task}_$split.db" prepro_query.py --task "$task" --annotation "$annotation" \
        ${videos[@]+"${videos[@]}"}
}

start create_txtdb.sh "$@"
prepare_subtitles tv 1.5 tvqa_preprocessed_subtitles.jsonl
prepare_subtitles how2 2
prepare_subtitles violin 1.5
prepare_subtitles didemo 1.5
prepare_subtitles msrvtt 2
for split in train val test test_public test_private; do
    convert how2r "$split" "how2R_${split}_release.csv"
    convert how2qa "$split" "how2QA_${split}_release.csv"
    convert didemo "$split" "${split}_data.json"
    for task in tvr tvqa violin msrvtt how2r how2qa didemo; do
        prepare_queries "$task" "$split"
    done
done
finish
