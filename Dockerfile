# Everything HERO needs except its source, which launch_container.sh mounts at /src, so that changes
# take effect without rebuilding:
#
#   docker build --tag hero:1.0 .
#
# Another base, as for cards that CUDA 13 no longer knows (Volta): --build-arg BASE=…
ARG BASE=nvcr.io/nvidia/pytorch:25.10-py3
FROM ${BASE}

SHELL ["/bin/bash", "-euo", "pipefail", "-c"]

# Java runs METEOR. The base image fixes Ubuntu's release, and that the versions.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends cmake default-jre-headless git \
    && rm -rf /var/lib/apt/lists/*

# The base brings its own builds of PyTorch, NumPy and others; the rest gets the tested versions.
COPY requirements.txt constraints.txt /tmp/hero/
WORKDIR /tmp/hero
RUN python -c 'import re; \
from importlib.metadata import distributions; \
plain = lambda name: re.sub("[-_.]+", "-", name).lower(); \
present = {plain(d.name) for d in distributions()}; \
lines = [line for line in open("constraints.txt") if "==" in line]; \
open("missing.txt", "w").writelines(l for l in lines if plain(l.split("==")[0]) not in present)' \
    && python -m pip install --no-cache-dir --requirement requirements.txt --constraint missing.txt

# apex, for --apex: fused layer norm and Adam, built for this PyTorch.
ARG APEX=25.09
RUN git clone --quiet --depth 1 --branch "${APEX}" https://github.com/NVIDIA/apex.git apex \
    && APEX_CPP_EXT=1 APEX_CUDA_EXT=1 \
        python -m pip install --no-cache-dir --no-deps --no-build-isolation ./apex \
    && python -c 'import torch, amp_C, fused_layer_norm_cuda' \
    && rm -rf apex

# Horovod over NCCL, built for this PyTorch.
COPY scripts/install_horovod.sh /tmp/hero/
RUN HERO_WHEEL_CACHE=/tmp/hero/wheels bash install_horovod.sh && rm -rf wheels

RUN useradd --create-home --uid 10001 hero
USER 10001
WORKDIR /src
