#!/usr/bin/env bash
# Prepare the caption databases (TVC).
#
#   bash scripts/prepro_tvc.sh TXT_DB_DIR ANN_DIR
#
# TXT_DB_DIR/tvc_<split>.db, <split> = train val test_public, is made from these files in ANN_DIR
# (a split that is not there is passed over):
#   tvc_<split>.jsonl or tvc_<split>_release.jsonl       clips; also copied to TXT_DB_DIR, where
#                                                        validation and inference look for them
#   tv_subtitles.jsonl or tvqa_preprocessed_subtitles.jsonl
#
# Environment: as for scripts/create_txtdb.sh.
set -euo pipefail
REPO=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")
source "$REPO/scripts/txtdb.sh"

start prepro_tvc.sh "$@"
subtitles=$(first_of tv_subtitles.jsonl tvqa_preprocessed_subtitles.jsonl) ||
    fail "$ANN has no tv_subtitles.jsonl (or tvqa_preprocessed_subtitles.jsonl)"
for split in train val test_public; do
    annotation=$(first_of "tvc_$split.jsonl" "tvc_${split}_release.jsonl") || continue
    prepare "tvc_$split.db" prepro_tvc.py --annotation "$annotation" --subtitles "$subtitles"
    cp --update "$annotation" "$TXT/tvc_${split}_release.jsonl"
done
finish
