#!/usr/bin/env bash
# Start HERO's container with the data mounted:
#
#   source launch_container.sh TXT_DB VIDEO_DB STORAGE PRETRAIN [--prepro] [--dry-run] [-- COMMAND…]
#
# TXT_DB, VIDEO_DB, STORAGE and PRETRAIN are folders; in the container they are /txt, /video,
# /storage and /pretrain, and this folder is /src. Only /storage and /src can be written, with
# --prepro also /txt and /video, for making databases. Without COMMAND it is a shell. The GPUs are
# those of $CUDA_VISIBLE_DEVICES (all if it is unset, none if it is empty). --dry-run prints the
# command instead of running it. Docker or podman, and the image: scripts/container.sh.

# A subshell: whether sourced or run, this neither changes nor ends the caller's shell.
(
    set -euo pipefail
    REPO="$(cd "$(dirname "${BASH_SOURCE[0]:-$0}")" && pwd)"
    source "$REPO/scripts/container.sh"

    folders=() dry_run=no databases=ro
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        case "$1" in
            --prepro) databases=rw ;;
            --dry-run) dry_run=yes ;;
            -*) fail "unknown option $1; there are --prepro and --dry-run" ;;
            *) folders+=("$1") ;;
        esac
        shift
    done
    [ ${#folders[@]} -eq 4 ] || fail "four folders are needed, not ${#folders[@]}:" \
        "source launch_container.sh TXT_DB VIDEO_DB STORAGE PRETRAIN [--prepro] [--dry-run]"
    missing=()
    for folder in "${folders[@]}"; do
        [ -d "$folder" ] || missing+=("'$folder'")
    done
    [ ${#missing[@]} -eq 0 ] || fail "no such folder: ${missing[*]}; make it, or fix the path"

    whole() { (cd "$1" && pwd); }
    in_container "$(whole "${folders[0]}"):/txt:$databases" \
        "$(whole "${folders[1]}"):/video:$databases" "$(whole "${folders[2]}"):/storage:rw" \
        "$(whole "${folders[3]}"):/pretrain:ro" "$REPO:/src:rw" -- "${@:2}"
)
