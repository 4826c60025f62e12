#!/usr/bin/env bash
# Make a virtual environment with the tested versions of everything HERO needs.
#
#   bash scripts/setup_venv.sh [FOLDER] [REQUIREMENTS]     # default: .venv requirements-dev.txt
#   PYTHON=python3.12 bash scripts/setup_venv.sh
#
# Without an NVIDIA GPU, PyTorch's CPU build is installed (0.2 GB instead of several). Running it
# again is quick: a stamp in the environment records the requirements it was made for.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly VENV="${1:-.venv}"
readonly REQUIREMENTS="${2:-requirements-dev.txt}"
readonly PYTHON="${PYTHON:-python3}"
readonly STAMP="$VENV/requirements.sha256"
readonly CPU_INDEX=https://download.pytorch.org/whl/cpu

say() { echo "setup_venv: $*"; }
fail() {
    echo "error: $*" >&2
    exit 2
}

check_python() {
    command -v "$PYTHON" >/dev/null ||
        fail "there is no '$PYTHON'; install Python 3.11 or newer (apt-get install python3 python3-venv)"
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$("$PYTHON" --version) is too old: HERO needs 3.11 or newer; set PYTHON to one, e.g. PYTHON=python3.12"
    "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$PYTHON cannot make virtual environments; run: sudo apt-get install python3-venv"
}

interpreter() { # PYTHON
    "$1" -c 'import sys; print(sys.version, sys.base_prefix)' 2>/dev/null
}

# Hash the files and the interpreter that the environment is made from.
fingerprint() {
    { interpreter "$PYTHON" && cat requirements*.txt constraints.txt && echo "$REQUIREMENTS"; } |
        sha256sum
}

pip_install() {
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check \
        --constraint constraints.txt "$@"
}

# PyTorch's default Linux wheels need gigabytes of CUDA libraries. Without a GPU install "+cpu" wheels:
# from pip's configured index, or else from PyTorch's own.
install_torch() {
    local pinned
    pinned="$(grep '^torch==' constraints.txt)"
    if command -v nvidia-smi >/dev/null || [ "$(uname -s)" != Linux ]; then
        pip_install "$pinned"
    elif ! pip_install --no-deps "$pinned+cpu" 2>/dev/null; then
        pip_install --no-deps "$pinned+cpu" --index-url "$CPU_INDEX" ||
            fail "$pinned+cpu could not be installed; is $CPU_INDEX reachable?"
    fi
}

main() {
    check_python
    if [ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$(fingerprint)" ]; then
        return
    fi
    say "making $VENV (some minutes the first time)"
    if [ "$(interpreter "$VENV/bin/python")" != "$(interpreter "$PYTHON")" ]; then
        "$PYTHON" -m venv --clear "$VENV"
    fi
    install_torch
    pip_install --requirement "$REQUIREMENTS"
    fingerprint >"$STAMP"
    say "$VENV is ready: $("$VENV/bin/python" -c 'import sys, torch
print(f"Python {sys.version.split()[0]}, PyTorch {torch.__version__}")')"
}

main
