"""Captioning on the recorded world: options of a short training, and metrics without Java."""

import os
import stat
from pathlib import Path

import pytest

# Answers like the PTB tokenizer and like METEOR, at once and without Java.
FAKE_JAVA = """#!/bin/sh
case "$*" in *PTBTokenizer*) exec cat;; esac
clips=0
while read -r line; do
    case "$line" in
        EVAL*) while [ "$clips" -ge 0 ]; do echo 0.5; clips=$((clips - 1)); done;;
        *) clips=$((clips + 1)); echo 1;;
    esac
done
"""


def tvc_options(world: Path, expected: Path) -> dict:
    """Without the length of the run and its folder."""
    databases = world / "txt_db"
    return {
        "train_db": str(databases / "tvc_train.db"),
        "val_db": str(databases / "tvc_val.db"),
        "val_ref": str(world / "ann" / "tvc_val.jsonl"),
        "sub_txt_db": str(databases / "tv_subtitles.db"),
        "vfeat_db": str(world / "video_db" / "tv"),
        "model_config": str(expected / "model_tvc.json"),
        "checkpoint": str(expected / "pretrained.pt"),
        "train_batch_size": 2,
        "max_gen_step": 4,
        "max_cap_per_vid": 3,
    }


def install_fake_java(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Put a ``java`` first in ``$PATH`` that gives every caption the same score at once."""
    program = folder / "java"
    folder.mkdir()
    program.write_text(FAKE_JAVA)
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
