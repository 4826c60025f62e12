# shellcheck shell=bash
# Sourced by create_txtdb.sh and prepro_tvc.sh: arguments, the container, finding annotations.

fail() {
    echo "error: $*" >&2
    exit 2
}

# start SCRIPT ARGUMENTS…: print SCRIPT's comment for --help, else check TXT_DB_DIR ANN_DIR and set
# TXT and ANN; with HERO_DOCKER=1 go on in the container.
start() {
    local script=$1
    shift
    if [[ ${1:-} == -h || ${1:-} == --help ]]; then
        sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$REPO/scripts/$script"
        exit 0
    fi
    [[ $# -eq 2 ]] || fail "usage: bash scripts/$script TXT_DB_DIR ANN_DIR (--help says more)"
    [[ -d $2 ]] || fail "$2 is no folder; ANN_DIR is where the annotations lie"
    mkdir -p "$1"
    TXT=$(realpath "$1")
    ANN=$(realpath "$2")
    made=0
    if [[ ${HERO_DOCKER:-0} == 1 ]]; then
        run_in_docker "$script"
    fi
}

run_in_docker() {
    local toker=$TOKER mounts=()
    if [[ -d $toker ]]; then
        mounts=(-v "$(realpath "$toker"):/toker:ro")
        toker=/toker
    fi
    exec docker run --rm --user "$(id -u):$(id -g)" -e HOME=/tmp -e "HERO_TOKER=$toker" \
        -e "HERO_WORKERS=${HERO_WORKERS:-}" -v "$REPO:/src:ro" -v "$TXT:/txt" -v "$ANN:/ann:ro" \
        ${mounts[@]+"${mounts[@]}"} "${HERO_IMAGE:-hero:1.0}" bash "/src/scripts/$1" /txt /ann
}

# first_of NAMES…: the path of the first that is in ANN_DIR.
first_of() {
    local name
    for name in "$@"; do
        if [[ -f $ANN/$name ]]; then
            echo "$ANN/$name"
            return
        fi
    done
    return 1
}

# prepare DB SCRIPT ARGUMENTS…: make TXT_DB_DIR/DB; what is made already is left alone.
prepare() {
    local db=$1 script=$2
    shift 2
    "$PYTHON" "$REPO/scripts/$script" "$@" --output "$TXT/$db" --toker "$TOKER" \
        ${HERO_WORKERS:+--workers "$HERO_WORKERS"}
    made=$((made + 1))
}

finish() {
    ((made > 0)) || fail "$ANN has none of the files that --help lists"
    echo "$made databases in $TXT"
}

PYTHON=${PYTHON:-python}
TOKER=${HERO_TOKER:-roberta-base}
