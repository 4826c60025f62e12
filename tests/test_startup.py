"""Preparation loads neither PyTorch nor transformers, which takes longer than most of its work."""

import json
import os
import subprocess
import sys

import pytest

from tests.support import REPOSITORY
from tests.support.damaged_world import TASKS, World

# Runs a script to its end, then names what it has loaded of the slow packages.
RUN = """
import atexit, json, runpy, sys
slow = {"torch", "transformers"}
atexit.register(lambda: print(json.dumps(sorted(slow & sys.modules.keys())), file=sys.stderr))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
# {ann}, {txt}, {video}: of the recorded world; {out}: a folder of the test.
COMMANDS = {
    "prepro_query": "--annotation {ann}/tvr_val.jsonl --output {out}/db --toker {toker}",
    "prepro_sub": "--annotation {ann}/tv_subtitles.jsonl --vid2nframe {ann}/tv_vid2nframe.json "
    "--output {out}/db --toker {toker}",
    "prepro_tvc": "--annotation {ann}/tvc_val.jsonl --subtitles {ann}/tv_subtitles.jsonl "
    "--output {out}/db --toker {toker}",
    "make_pretrain_splits": "--name tv --output {out} --sub_txt_db {txt}/tv_subtitles.db "
    "--vfeat_db {video}",
    "drop_ids": "--list {out}/drops.json --output {out}/copy {txt}/tvr_val.db "
    "{txt}/tv_subtitles.db {txt}/tvc_val.db",
    "cut_clips": "--annotation {ann}/tv_subtitles.jsonl --output {out}/clips.jsonl "
    "--vfeat_db {video} --clip_vfeat_db {out}/clips --frame_length 1.5",
    "prepare_data": "--dataset tvr --from raw --ann_dir {ann} --toker {toker} --storage {out} "
    "--only txt_db/tvr_val.db",
    "convert_subtitles": "--input {out} --output {out}/subtitles.jsonl",
    "convert_annotations": "--task didemo --annotation {out}/didemo.json "
    "--output {out}/didemo.jsonl",
    "format_submission": "--task violin --annotation {ann}/violin_val.jsonl "
    "--results {violin} --output {out}/answers.json",
}


def loaded_by(script: str, *words: str) -> list[str]:
    """Slow packages that a script, run to its successful end, has loaded."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, f"scripts/{script}.py", *words],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stderr.splitlines()[-1])


@pytest.mark.golden
@pytest.mark.parametrize("script", COMMANDS)
def test_preparation_does_without(script, world, expected, tmp_path):
    (tmp_path / "drops.json").write_text('{"videos": []}')
    (tmp_path / "v.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nHello.\n")
    row = {"annotation_id": 1, "description": "a", "video": "v.avi", "times": [[0, 0]]}
    (tmp_path / "didemo.json").write_text(json.dumps([row]))
    command = COMMANDS[script].format(
        ann=world / "ann",
        txt=world / "txt_db",
        video=world / "video_db" / "tv",
        toker=world / "toker",
        violin=expected / "exp_violin" / "results_val" / "results_1_all.json",
        out=tmp_path,
    )
    assert loaded_by(script, *command.split()) == []


@pytest.mark.parametrize("task", (*TASKS, "tvc"))
def test_the_quick_check_does_without(task, tmp_path):
    config = World(tmp_path, task).write()
    assert loaded_by("check_data", "--quick", "--config", str(config)) == []
