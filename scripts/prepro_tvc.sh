#!/usr/bin/env bash
# Prepare the caption databases (TVC).
#
#   bash scripts/prepro_tvc.sh TXT_DB_DIR ANN_DIR
#
# TXT_DB_DIR/tvc_<split>.db is made from these files in ANN_DIR (missing splits are skipped):
#   tvc_<split>.jsonl or tvc_<split>_release.jsonl       clips; also copied to TXT_DB_DIR, for
#                                                        validation and inference
#   tv_subtitles.jsonl or tvqa_preprocessed_subtitles.jsonl
#
# Environment: as for scripts/create_txtdb.sh.
set -euo pipefail
REPO=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")
source "$REPO/scripts/preparation.sh"
text_databases prepro_tvc.sh "$@" -- --dataset tvc --only 'txt_db/tvc_*'
