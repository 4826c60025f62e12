#!/usr/bin/env python
"""Print what a bug report needs: machine, versions, settings.

    python scripts/report_environment.py

It needs only Python, so it also runs after a failed installation.
"""

import argparse
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = re.compile(
    r"(HERO|HOROVOD|NCCL|CUDA|OMP|KMP|MKL|GOMP|ONEDNN|DNNL|MALLOC|PYTORCH|TORCH|HF|SLURM)_\w+|"
    r"LRU_CACHE_CAPACITY|RANK|LOCAL_RANK|WORLD_SIZE|TMPDIR|LANG|LC_ALL"
)
SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSWORD|BLOB_URL")
SECONDS = 60


def main(argv: list[str] | None = None) -> None:
    """Print the report, one fact per line."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args(argv)
    for name, value in facts():
        print(f"{name + ':':<22}{value}")


def facts() -> Iterator[tuple[str, str]]:
    """Yield names and values."""
    yield "HERO", run("git", "-C", str(ROOT), "describe", "--always", "--dirty", "--long")
    yield "Python", f"{platform.python_version()} ({platform.python_implementation()})"
    yield "system", f"{platform.platform()}, libc {' '.join(platform.libc_ver())}"
    yield "processor", f"{processor()}, {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    yield "memory", f"{memory:.1f} GiB; free disk {shutil.disk_usage(ROOT).free / 2**30:.0f} GiB"
    query = "--query-gpu=name,memory.total,driver_version"
    yield "GPU", run("nvidia-smi", query, "--format=csv,noheader")
    yield "CUDA compiler", run("nvcc", "--version")
    yield "C++ compiler", run("g++", "--version")
    yield "Java", run("java", "-version")
    yield "FFmpeg", run("ffmpeg", "-version")
    yield from ((name, version(name)) for name in requirements())
    for name, value in sorted(os.environ.items()):
        if SETTINGS.fullmatch(name):
            yield name, "(set, not shown)" if SECRET.search(name) else value


def requirements() -> list[str]:
    """Return the packages of requirements.txt, and optional ones."""
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    return [*re.findall(r"^[\w.-]+", text, flags=re.MULTILINE), "horovod", "apex", "torchvision"]


def version(package: str) -> str:
    """Return the installed version, or ``not installed``."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def processor() -> str:
    """Return the processor's name and its instruction sets for half precision."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    name = re.search(r"^model name\s*: (.+)$", text, flags=re.MULTILINE)
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {flag}" in text]
    return f"{name[1] if name else platform.machine()} ({', '.join(flags) or 'no AVX2'})"


def run(*command: str) -> str:
    """Return the output of a command in one line, or the reason of a failure."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    except FileNotFoundError:
        return "not found"
    except (subprocess.SubprocessError, OSError) as error:
        return f"failed ({str(error).splitlines()[0]})"
    lines = (done.stdout.strip() or done.stderr.strip()).splitlines()
    shown = {"nvcc": lines[-2:], "nvidia-smi": lines}.get(command[0], lines[:1])
    return "; ".join(line.strip() for line in shown)


if __name__ == "__main__":
    main()
