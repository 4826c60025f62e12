#!/usr/bin/env bash
# Prepare the query and subtitle databases of all annotation files in a folder.
#
#   bash scripts/create_txtdb.sh TXT_DB_DIR ANN_DIR
#
# Files that are not in ANN_DIR are skipped; scripts/prepare_data.py --help lists the file of each
# database. Subtitles need <corpus>_vid2nframe.json next to them, a copy of the id2nframe.json of the
# video database. TVC: see scripts/prepro_tvc.sh.
#
# Environment:
#   HERO_TOKER    tokenizer: hub name or local folder (default: roberta-base)
#   HERO_WORKERS  processes (default: one per core, at most 8)
#   HERO_DOCKER   1: run in the Docker image HERO_IMAGE (default: hero:1.0)
#   PYTHON        interpreter (default: that of .venv, or python)
set -euo pipefail
REPO=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")
source "$REPO/scripts/preparation.sh"
text_databases create_txtdb.sh "$@" -- \
    --dataset tvr tvqa violin msrvtt how2r how2qa didemo yc2r yc2c vatex_en_r vatex_en_c vlep
