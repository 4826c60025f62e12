#!/usr/bin/env bash
# Start HERO's container with the data mounted:
#
#   source launch_container.sh TXT_DB VIDEO_DB STORAGE PRETRAIN [--prepro] [--dry-run]
#
# TXT_DB, VIDEO_DB, STORAGE and PRETRAIN are folders; in the container they are /txt, /video,
# /storage and /pretrain, and this folder is /src. Only /storage and /src can be written, with
# --prepro also /txt and /video, for making databases. The GPUs are those of $CUDA_VISIBLE_DEVICES
# (all if it is unset, none if it is empty). --dry-run prints the command instead of running it.
# The image is $HERO_IMAGE (hero:1.0); it is built from the Dockerfile if it is not there yet.

# A subshell: whether sourced or run, this neither changes nor ends the caller's shell.
(
    set -euo pipefail
    source_folder="$(cd "$(dirname "${BASH_SOURCE[0]:-$0}")" && pwd)"
    image="${HERO_IMAGE:-hero:1.0}"

    fail() {
        printf 'error: %s\n' "$*" >&2
        exit 2
    }

    folders=() dry_run=no read_only=,readonly
    for argument in "$@"; do
        case "$argument" in
            --prepro) read_only= ;;
            --dry-run) dry_run=yes ;;
            -*) fail "unknown option $argument; there are --prepro and --dry-run" ;;
            *) folders+=("$argument") ;;
        esac
    done
    [ ${#folders[@]} -eq 4 ] || fail "four folders are needed, not ${#folders[@]}:" \
        "source launch_container.sh TXT_DB VIDEO_DB STORAGE PRETRAIN [--prepro] [--dry-run]"
    missing=()
    for folder in "${folders[@]}"; do
        [ -d "$folder" ] || missing+=("'$folder'")
    done
    [ ${#missing[@]} -eq 0 ] || fail "no such folder: ${missing[*]}; make it, or mend the path"

    # Shared memory and locked pages as the base image's makers ask for; files belong to the caller.
    options=(--rm --ipc=host --ulimit memlock=-1 --ulimit stack=67108864 --workdir /src)
    options+=(--user "$(id -u):$(id -g)" --env HOME=/tmp --env "USER=$(id -un)")
    if [ -t 0 ]; then options+=(--interactive --tty); fi
    if [ -z "${CUDA_VISIBLE_DEVICES+set}" ]; then
        options+=(--gpus all)
    elif [ -n "$CUDA_VISIBLE_DEVICES" ]; then
        options+=(--gpus "\"device=$CUDA_VISIBLE_DEVICES\"")
    fi
    bind() { # FOLDER NAME [,readonly]
        options+=(--mount "type=bind,source=$(cd "$1" && pwd),destination=$2${3:-}")
    }
    set -- "${folders[@]}"
    bind "$1" /txt "$read_only"
    bind "$2" /video "$read_only"
    bind "$3" /storage
    bind "$4" /pretrain ,readonly
    bind "$source_folder" /src

    command=(docker run "${options[@]}" "$image")
    if [ "$dry_run" = yes ]; then
        printf '%q ' "${command[@]}"
        echo
        exit
    fi
    [ -n "$(type -P docker)" ] || fail "docker is not installed"
    if ! docker image inspect "$image" >/dev/null 2>&1; then
        echo "building $image; this takes a while, once"
        docker build --tag "$image" "$source_folder"
    fi
    "${command[@]}"
)
