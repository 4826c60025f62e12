"""The benchmark of a GPU, tried where there may be none: every section, small."""

import json
import os
import subprocess
import sys

import pytest
import torch

from benchmarks import gpu
from benchmarks.cases import CASES
from tests.support.survival import REPOSITORY


@pytest.mark.slow
def test_every_section(tmp_path, capsys):
    output = tmp_path / "gpu.json"
    words = ["--small", "--device", "cpu", "--precision", "fp32", "--output", str(output)]
    assert gpu.main(words) == 0
    tables = json.loads(output.read_text())
    assert [*tables] == [*gpu.SECTIONS]
    said = capsys.readouterr().out
    for name, table in tables.items():
        assert table["failed"] is None and table["rows"]
        assert all(len(row) == len(table["headers"]) for row in table["rows"])
        assert f"\n{name} (" in said
    steps = {(row[0], row[1]): row[2:] for row in tables["steps"]["rows"]}
    assert [*steps] == [(task, way) for task in CASES for way in ("padded", "packed")]
    for positions, ms, rate, flop, share, _, ratio in steps.values():
        assert positions > 0 and rate == pytest.approx(1e3 * positions / ms)
        assert flop > 0 and share > 0 and ratio > 0
    phases = [row[0] for row in tables["phases"]["rows"]]
    assert phases[:5] == ["waiting for data", "forward", "backward", "reduce", "optimizer"]
    assert all(operations > 100 for _, operations, *_ in tables["launches"]["rows"])


def test_a_section_that_fails_is_said_and_the_others_go_on(monkeypatch, capsys, tmp_path):
    def rows(bench):
        yield ["first", 1]
        raise torch.OutOfMemoryError("it does not fit\nat all")

    monkeypatch.setitem(gpu.SECTIONS, "peak", (["a", "b"], rows))
    output = tmp_path / "gpu.json"
    words = ["--small", "--device", "cpu", "--only", "peak", "device", "--output", str(output)]
    assert gpu.main(words) == 1
    tables = json.loads(output.read_text())
    assert tables["peak"]["rows"] == [["first", 1]]
    assert tables["peak"]["failed"] == "OutOfMemoryError: it does not fit"
    assert "failed: OutOfMemoryError: it does not fit" in capsys.readouterr().out
    assert tables["device"]["failed"] is None


def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as ended:
        gpu.main([])
    assert ended.value.code == 2
    assert "PyTorch finds no CUDA device here" in capsys.readouterr().err


def test_tests_on_a_gpu_say_where_there_is_none():
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "gpu", "tests/utils/test_host_copy.py"],
        cwd=REPOSITORY,
        env=os.environ | {"HERO_TEST_DEVICE": "cuda", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    wanted = "Exit: HERO_TEST_DEVICE=cuda: PyTorch finds no CUDA device here"
    assert (run.stdout + run.stderr).strip() == wanted
