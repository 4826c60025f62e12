# shellcheck shell=bash
# Sourced by the scripts that start HERO's container: engine, image, options, mounts.
#
# $HERO_CONTAINER_ENGINE is docker, podman or buildah (default: the first that is installed);
# buildah needs only a chroot, and supports no GPUs. The image is $HERO_IMAGE (hero:1.0); if it does
# not exist, it is built from the Dockerfile, with the additional options in $HERO_BUILD_OPTIONS,
# such as “--build-arg BASE=docker.io/debian:bookworm-slim” for a CPU.

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

# in_container [MOUNT | NAME=VALUE]… -- [COMMAND…]: run COMMAND (default: a shell) as the calling
# user, with the user's GPUs. A MOUNT is FOLDER:DESTINATION:rw or :ro; callers mount the source at
# /src. With dry_run=yes in the environment print the command instead.
in_container() {
    local image="${HERO_IMAGE:-hero:1.0}" engine folder rest
    local options=(--user "$(id -u):$(id -g)" --env HOME=/tmp --env "USER=$(id -un)")
    engine="$(container_engine)" || exit
    [ "$engine" != buildah ] || local writable=,rw # its mounts are read-only by default
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        case "$1" in
            /*:ro) rest="${1%:ro}" && folder="${rest%:*}" && rest="${rest##*:},readonly" ;;
            /*:rw) rest="${1%:rw}" && folder="${rest%:*}" && rest="${rest##*:}${writable:-}" ;;
            *) options+=(--env "$1") && shift && continue ;;
        esac
        options+=(--mount "type=bind,source=$folder,destination=$rest")
        shift
    done
    shift
    "run_in_$engine" "$@"
}

container_engine() {
    local engine="${HERO_CONTAINER_ENGINE:-}" candidate
    for candidate in docker podman buildah; do
        if [ -z "$engine" ] && [ -n "$(type -P "$candidate")" ]; then engine=$candidate; fi
    done
    case "$engine" in
        '') fail "neither docker nor podman is installed" ;;
        docker | podman | buildah) ;;
        *) fail "HERO_CONTAINER_ENGINE is docker, podman or buildah, not $engine" ;;
    esac
    [ -n "$(type -P "$engine")" ] || fail "$engine is not installed"
    echo "$engine"
}

# Shared memory and locked pages as the base image requires.
run_in_docker() {
    local gpus="${CUDA_VISIBLE_DEVICES-all}"
    options=(--rm --ipc=host --ulimit memlock=-1 --ulimit stack=67108864 "${options[@]}")
    [ -z "$gpus" ] || [ "$gpus" = all ] || gpus="\"device=$gpus\"" # docker reads it as CSV
    [ -z "$gpus" ] || options+=(--gpus "$gpus")
    require_image docker build
    show_or_run docker run "${terminal[@]}" --workdir /src "${options[@]}" "$image" "$@"
}

run_in_podman() {
    local gpu gpus="${CUDA_VISIBLE_DEVICES-all}"
    options=(--rm --ipc=host --ulimit host --userns keep-id "${options[@]}")
    if [ "$gpus" = all ] && [ ! -e /dev/nvidiactl ]; then gpus=; fi # podman fails without a device
    for gpu in ${gpus//,/ }; do options+=(--device "nvidia.com/gpu=$gpu"); done
    require_image podman build --format docker
    show_or_run podman run "${terminal[@]}" --workdir /src "${options[@]}" "$image" "$@"
}

# Commands run in working containers, not in images. Horovod resolves the host's name, and a chroot's
# has no address.
run_in_buildah() {
    local container=CONTAINER status=0
    require_image buildah build --isolation chroot --format docker
    [ "${dry_run:-no}" = yes ] || container="$(buildah from "$image")"
    [ $# -gt 0 ] || set -- bash
    options=(--isolation chroot --hostname localhost --workingdir /src "${options[@]}")
    show_or_run buildah run "${options[@]}" "$container" -- "$@" || status=$?
    [ "${dry_run:-no}" = yes ] || buildah rm "$container" >/dev/null
    return "$status"
}

require_image() { # ENGINE BUILD-COMMAND…
    if [ "${dry_run:-no}" = yes ] || "$1" inspect --type image "$image" >/dev/null 2>&1; then
        return
    fi
    echo "building $image; this takes a while, once"
    # shellcheck disable=SC2086  # several options
    "$@" --tag "$image" ${HERO_BUILD_OPTIONS:-} "$REPO"
}

show_or_run() {
    if [ "${dry_run:-no}" = yes ]; then
        printf '%q ' "$@"
        echo
    else
        "$@"
    fi
}

terminal=()
if [ -t 0 ]; then terminal=(--interactive --tty); fi
