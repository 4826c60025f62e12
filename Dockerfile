# Everything HERO needs except its source, which launch_container.sh mounts at /src, so that changes
# take effect without rebuilding:
#
#   docker build --tag hero:1.0 .                                                   # NVIDIA GPUs
#   docker build --tag hero:1.0 --build-arg BASE=docker.io/debian:bookworm-slim .   # CPU
#
# Another base, as for cards that CUDA 13 no longer knows (Volta), is a --build-arg, too. A base that
# brings PyTorch keeps it; another gets the tested version's CPU build, in /opt/hero.
#
# The default base has a pre-release of PyTorch 2.9. The tests ran on nothing older than 2.11, so on
# this base HERO is untried; a later release of it (YY.MM-py3) may have what requirements.txt asks for.
ARG BASE=nvcr.io/nvidia/pytorch:25.10-py3
FROM ${BASE}

SHELL ["/bin/bash", "-euo", "pipefail", "-c"]

# Java runs METEOR, the compiler builds Horovod; what the base has stays. The base image fixes the
# release of the distribution, and that the versions.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates cmake default-jre-headless \
        g++ git make \
    && { command -v python >/dev/null \
        || apt-get install --yes --no-install-recommends python3-dev python3-venv; } \
    && rm -rf /var/lib/apt/lists/*

COPY requirements.txt constraints.txt /tmp/hero/
COPY scripts/setup_venv.sh scripts/install_horovod.sh /tmp/hero/scripts/
WORKDIR /tmp/hero
ENV PATH=/opt/hero/bin:${PATH}
# What the base brings of its own builds (PyTorch, NumPy, …) stays, also where it is older than what
# requirements.txt asks for; the rest gets the tested versions.
RUN if ! python -c 'import torch' 2>/dev/null; then \
        PIP_NO_CACHE_DIR=1 bash scripts/setup_venv.sh /opt/hero requirements.txt; \
    else \
        python -c 'import re; \
from importlib.metadata import distributions; \
plain = lambda line: re.sub("[-_.]+", "-", re.match(r"[\w.-]*", line)[0]).lower(); \
present = {plain(d.name) for d in distributions()} | {""}; \
[open("missing-" + name, "w").writelines(l for l in open(name) if plain(l) not in present) \
for name in ("requirements.txt", "constraints.txt")]' \
        && python -m pip install --no-cache-dir --requirement missing-requirements.txt \
            --constraint missing-constraints.txt; \
    fi

# apex, for --apex: fused layer norm and Adam, built for this PyTorch; only where it has CUDA.
ARG APEX=25.09
RUN if python -c 'import torch; raise SystemExit(torch.version.cuda is None)'; then \
        git clone --quiet --depth 1 --branch "${APEX}" https://github.com/NVIDIA/apex.git apex \
        && APEX_CPP_EXT=1 APEX_CUDA_EXT=1 \
            python -m pip install --no-cache-dir --no-deps --no-build-isolation ./apex \
        && python -c 'import torch, amp_C, fused_layer_norm_cuda' \
        && rm -rf apex; \
    fi

# Horovod, built for this PyTorch: over NCCL where it has CUDA, else over Gloo. It is tried, and looks
# for the address of its host, whose name not every builder makes known.
RUN { getent hosts "$(hostname)" >/dev/null || echo "127.0.0.1 $(hostname)" >>/etc/hosts; } \
    && HERO_WHEEL_CACHE=/tmp/hero/wheels bash scripts/install_horovod.sh && rm -rf wheels

RUN useradd --create-home --uid 10001 hero
USER 10001
WORKDIR /src
