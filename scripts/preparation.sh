# shellcheck shell=bash
# Sourced by the scripts that download or prepare data: help, interpreter, the call.
# They set REPO.

source "$REPO/scripts/container.sh"

# show_help SCRIPT [ARGUMENTS…]: print SCRIPT's comment and exit if the first argument is -h or --help.
show_help() {
    if [[ ${2:-} == -h || ${2:-} == --help ]]; then
        sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$REPO/scripts/$1"
        exit 0
    fi
}

# prepare_data ARGUMENTS…: call prepare_data.py with $PYTHON, the repository's .venv, or python.
prepare_data() {
    local python=${PYTHON:-python}
    if [[ -z ${PYTHON:-} && -x $REPO/.venv/bin/python ]]; then
        python=$REPO/.venv/bin/python
    fi
    "$python" -c 'import lmdb, requests, toposort' 2>/dev/null ||
        fail "$python lacks what HERO needs: run 'make venv', set PYTHON to the interpreter of an" \
            "environment that has it, or HERO_DOCKER=1 for the container"
    exec "$python" "$REPO/scripts/prepare_data.py" "$@"
}

# download DATASET STORAGE [OPTIONS…]
download() {
    local dataset=$1 storage=${2:-} mounts=()
    show_help "download_$dataset.sh" "${@:2}"
    [[ -n $storage && $storage != -* ]] ||
        fail "usage: bash scripts/download_$dataset.sh STORAGE [OPTION…] (--help says more)"
    if [[ ${HERO_DOCKER:-0} == 1 ]]; then
        mkdir -p "$storage"
        if [[ -d ${HERO_BLOB_URL:-} ]]; then
            mounts=("$(realpath "$HERO_BLOB_URL"):/mirror:ro" HERO_BLOB_URL=/mirror)
        elif [[ -n ${HERO_BLOB_URL:-} ]]; then
            mounts=("HERO_BLOB_URL=$HERO_BLOB_URL")
        fi
        in_container "$(realpath "$storage"):/data:rw" "$REPO:/src:ro" \
            ${mounts[@]+"${mounts[@]}"} -- \
            bash "/src/scripts/download_$dataset.sh" /data "${@:3}"
        exit
    fi
    prepare_data --dataset "$dataset" --storage "$storage" "${@:3}"
}

# text_databases SCRIPT TXT_DB_DIR ANN_DIR -- OPTIONS…: make databases of the annotations.
text_databases() {
    local script=$1 given=() toker=${HERO_TOKER:-roberta-base} mounts=()
    shift
    while [[ $1 != -- ]]; do
        given+=("$1")
        shift
    done
    shift
    show_help "$script" ${given[@]+"${given[@]}"}
    [[ ${#given[@]} -eq 2 ]] ||
        fail "usage: bash scripts/$script TXT_DB_DIR ANN_DIR (--help says more)"
    [[ -d ${given[1]} ]] || fail "${given[1]} is no folder; ANN_DIR must hold the annotations"
    mkdir -p "${given[0]}"
    if [[ ${HERO_DOCKER:-0} == 1 ]]; then
        if [[ -d $toker ]]; then
            mounts=("$(realpath "$toker"):/toker:ro")
            toker=/toker
        fi
        in_container "HERO_TOKER=$toker" "HERO_WORKERS=${HERO_WORKERS:-}" "$REPO:/src:ro" \
            "$(realpath "${given[0]}"):/txt:rw" "$(realpath "${given[1]}"):/ann:ro" \
            ${mounts[@]+"${mounts[@]}"} -- bash "/src/scripts/$script" /txt /ann
        exit
    fi
    prepare_data --from raw --txt_db "$(realpath "${given[0]}")" \
        --ann_dir "$(realpath "${given[1]}")" --toker "$toker" \
        ${HERO_WORKERS:+--workers "$HERO_WORKERS"} "$@"
}
