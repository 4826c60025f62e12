#!/usr/bin/env bash
# Install Horovod 0.28.1 for the PyTorch that is already installed, and prove that it works.
#
#   bash scripts/install_horovod.sh              # for `python`
#   PYTHON=/path/to/python bash scripts/install_horovod.sh
#
# There are no Horovod wheels, and the last release (0.28.1) is built as C++14, while PyTorch's headers
# need C++17 since 2.1 and C++20 since 2.14: this raises the standard in the sources and builds them
# (about four minutes on two cores). The wheel is kept in ~/.cache/hero/wheels ($HERO_WHEEL_CACHE),
# by the versions it was built for. With a CUDA build of PyTorch, collectives use NCCL; Horovod's own
# variables (HOROVOD_NCCL_HOME, HOROVOD_CUDA_HOME, …) are passed to its build.
set -euo pipefail

readonly VERSION=0.28.1
readonly SHA256=92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0
readonly PYTHON="${PYTHON:-python}"
readonly CACHE="${HERO_WHEEL_CACHE:-$HOME/.cache/hero/wheels}"

say() { echo "install_horovod: $*"; }
fail() {
    echo "error: $*" >&2
    exit 2
}

# Two processes add their ranks plus one: 1 + 2 = 3.
verify() {
    say "checking a two-process all-reduce"
    CUDA_VISIBLE_DEVICES='' timeout 120 "$PYTHON" -c \
        'import sys; from horovod.runner.launch import run_commandline; sys.exit(run_commandline())' \
        -np 2 -H localhost:2 "$PYTHON" -c '
import horovod.torch as hvd
import torch

hvd.init()
total = hvd.allreduce(torch.tensor([hvd.rank() + 1.0]), op=hvd.Sum, name="check")
assert hvd.size() == 2 and total.item() == 3, (hvd.size(), total)
'
}

check_python() {
    command -v "$PYTHON" >/dev/null || fail "there is no '$PYTHON'; set PYTHON to an interpreter"
    "$PYTHON" -m pip --version >/dev/null 2>&1 ||
        fail "$PYTHON has no pip; run: $PYTHON -m ensurepip"
    "$PYTHON" -c 'import torch' 2>/dev/null ||
        fail "$PYTHON cannot import torch; install PyTorch first: Horovod is built against it"
}

is_installed() {
    "$PYTHON" - <<'PY' 2>/dev/null
import horovod.torch as hvd
import torch

raise SystemExit(not (hvd.gloo_built() and (torch.version.cuda is None or hvd.nccl_built())))
PY
}

check_tools() {
    local missing=()
    if ! "$PYTHON" - <<'PY' 2>/dev/null; then
import re
import subprocess

found = re.search(r"(\d+)\.(\d+)", subprocess.check_output(["cmake", "--version"], text=True))
raise SystemExit(tuple(map(int, found.groups())) < (3, 13))
PY
        missing+=("cmake >= 3.13 (apt-get install cmake, or: $PYTHON -m pip install cmake)")
    fi
    command -v "${CXX:-c++}" >/dev/null || missing+=("a C++ compiler (apt-get install g++)")
    command -v make >/dev/null || missing+=("make (apt-get install make)")
    "$PYTHON" -c 'import pathlib, sysconfig as s, sys
sys.exit(not pathlib.Path(s.get_path("include"), "Python.h").is_file())' ||
        missing+=("the headers of $PYTHON (apt-get install python3-dev)")
    if [ "$CUDA" != none ]; then
        local cuda="${HOROVOD_CUDA_HOME:-/usr/local/cuda}"
        command -v nvcc "$cuda/bin/nvcc" >/dev/null ||
            missing+=("nvcc of CUDA $CUDA, on PATH or in $cuda/bin (set HOROVOD_CUDA_HOME)")
        [ -e "${HOROVOD_NCCL_HOME:-/usr}/include/nccl.h" ] || [ -e "$cuda/include/nccl.h" ] ||
            [ -n "${HOROVOD_NCCL_INCLUDE:-}" ] ||
            missing+=("NCCL's headers (apt-get install libnccl-dev, or set HOROVOD_NCCL_HOME)")
    fi
    [ ${#missing[@]} -eq 0 ] && return
    printf 'error: Horovod cannot be built; this is missing:\n' >&2
    printf '  - %s\n' "${missing[@]}" >&2
    exit 2
}

# Print the C++ standard that PyTorch's headers need.
cxx_standard() {
    "$PYTHON" -c 'import re, torch
version = tuple(map(int, re.match(r"(\d+)\.(\d+)", torch.__version__).groups()))
print(20 if version >= (2, 14) else 17 if version >= (2, 1) else 14)'
}

fetch_sources() { # FOLDER
    echo "horovod==$VERSION --hash=sha256:$SHA256" >"$1/requirement.txt"
    "$PYTHON" -m pip download --quiet --no-deps --no-binary horovod --no-build-isolation \
        --require-hashes --dest "$1" --requirement "$1/requirement.txt"
    tar -xzf "$1/horovod-$VERSION.tar.gz" -C "$1"
}

raise_standard() { # SOURCES
    local standard file
    standard="$(cxx_standard)"
    for file in CMakeLists.txt horovod/torch/CMakeLists.txt horovod/common/ops/cuda/CMakeLists.txt; do
        grep -Eq '^ *set\(CMAKE_(CXX|CUDA)_STANDARD 1[14]\)' "$1/$file" ||
            fail "$file of Horovod's sources is not as expected"
        sed -Ei "s/^( *set\(CMAKE_C\w+_STANDARD) 1[14]\)/\1 $standard)/" "$1/$file"
    done
}

build_wheel() { # TARGET FOLDER
    local work log="$CACHE/build.log"
    mkdir -p "$CACHE"
    work="$(mktemp -d "$CACHE/build.XXXXXX")"
    # shellcheck disable=SC2064  # the folder's name is wanted now
    trap "rm -rf '$work'" EXIT
    say "fetching the sources of $VERSION"
    "$PYTHON" -m pip install --quiet 'setuptools>=61' wheel packaging cffi cloudpickle psutil pyyaml
    fetch_sources "$work"
    raise_standard "$work/horovod-$VERSION"

    export HOROVOD_WITH_PYTORCH=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1
    export HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1 HOROVOD_CPU_OPERATIONS=GLOO
    [ "$CUDA" = none ] || export HOROVOD_GPU_OPERATIONS="${HOROVOD_GPU_OPERATIONS:-NCCL}"
    export CMAKE_POLICY_VERSION_MINIMUM=3.5 # bundled libraries require older ones than CMake 4 has
    export MAKEFLAGS="${MAKEFLAGS:--j$(nproc)}"
    say "building for PyTorch $TORCH, CUDA $CUDA (some minutes)"
    if ! "$PYTHON" -m pip wheel --verbose --no-deps --no-build-isolation --wheel-dir "$work/wheel" \
        "$work/horovod-$VERSION" >"$log" 2>&1; then
        grep -n -m 20 -i 'error' "$log" >&2 || tail -n 20 "$log" >&2
        fail "the build failed; its output is in $log"
    fi
    rm -rf "$1"
    mv "$work/wheel" "$1"
}

main() {
    check_python
    PATH="$(dirname "$(command -v "$PYTHON")"):$PATH" # a cmake that pip installed lies there
    if is_installed; then
        say "a working Horovod is already installed for $PYTHON"
        return
    fi
    TORCH="$("$PYTHON" -c 'import torch; print(torch.__version__)')"
    CUDA="$("$PYTHON" -c 'import torch; print(torch.version.cuda or "none")')"
    local tag wheels
    tag="$("$PYTHON" -c 'import sys, sysconfig
print(f"{sys.implementation.cache_tag}-{sysconfig.get_platform()}")')"
    wheels="$CACHE/horovod-$VERSION-torch-$TORCH-$tag"
    if compgen -G "$wheels/*.whl" >/dev/null; then
        say "using the wheel in $wheels"
    else
        check_tools
        build_wheel "$wheels"
    fi
    "$PYTHON" -m pip install --quiet --force-reinstall --no-deps "$wheels"/*.whl
    "$PYTHON" -m pip install --quiet "horovod==$VERSION" # its dependencies
    verify || fail "Horovod was installed but its two-process all-reduce failed; see above"
    say "installed Horovod $VERSION"
}

main "$@"
