"""Runs of the recorded world of VALUE, as a user has them, and what was recorded of them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.recorded_value import WEIGHTS

STEP = "1000"
RELATIVE = 3e-4  # of moments' scores: exponentials of 20 × a float32 cosine
ABSOLUTE = 1e-5  # of videos' scores: cosines


def absolute(value: Any, golden: Path) -> Any:
    """A JSON value whose paths begin at the golden folder."""
    if isinstance(value, dict):
        return {key: absolute(part, golden) for key, part in value.items()}
    if isinstance(value, list):
        return [absolute(part, golden) for part in value]
    is_path = isinstance(value, str) and value.startswith(("world/", "expected/"))
    return str(golden / value) if is_path else value


def recorded_run(golden: Path, name: str, folder: Path, **changed: Any) -> Path:
    """The folder of a run: options, model sizes, weights of step 1000."""
    run = folder / name
    shutil.copytree(golden / "expected" / name / "log", run / "log")
    hps = run / "log" / "hps.json"
    options = absolute(json.loads(hps.read_text()), golden) | changed
    hps.write_text(json.dumps({key: value for key, value in options.items() if value is not None}))
    files = [golden / "expected" / part for part in WEIGHTS]
    weights = {k: v for file in files for k, v in torch.load(file, weights_only=True).items()}
    (run / "ckpt").mkdir()
    torch.save(weights, run / "ckpt" / f"model_step_{STEP}.pt")
    return run


def databases(golden: Path, corpus: str, queries: str | None = None) -> list[str]:
    """Words that name a corpus's databases, and a query database."""
    world = golden / "world"
    words = ["--vfeat_db", str(world / "video_db" / corpus)]
    words += ["--sub_txt_db", str(world / "txt_db" / f"{corpus}_subtitles.db")]
    return words + (["--query_txt_db", str(world / "txt_db" / f"{queries}.db")] if queries else [])


def read_results(folder: Path) -> Any:
    """The results file of a folder."""
    return json.loads((folder / f"results_{STEP}_all.json").read_text())


def assert_same_results(actual: dict, recorded: dict, scores: dict) -> None:
    """The same lists; only predictions whose own scores tie may change places.

    Args:
        actual, recorded: results in VALUE's form.
        scores: ours, by task and query: score of each prediction.
    """
    assert actual.keys() == recorded.keys()
    for task, entries in recorded.items():
        ours = {str(entry["desc_id"]): entry["predictions"] for entry in actual[task]}
        assert [str(entry["desc_id"]) for entry in entries] == list(ours)
        assert [type(e["desc_id"]) for e in entries] == [type(e["desc_id"]) for e in actual[task]]
        for entry in entries:
            where = f"{task} {entry['desc_id']}"
            own = scores[task][str(entry["desc_id"])]
            assert_same_list(ours[str(entry["desc_id"])], entry["predictions"], own, task, where)


def assert_same_list(ours: list, wanted: list, scores: dict, task: str, where: str) -> None:
    """The same predictions, in an order that the scores allow."""
    close = {"abs": ABSOLUTE} if task == "VR" else {"rel": RELATIVE, "abs": 0.0}

    def of(row: Any) -> float:
        return scores[tuple(row) if isinstance(row, list) else row]

    assert len(ours) == len(wanted) > 0, where
    last = min(map(of, ours))
    for own, row in zip(ours, wanted, strict=True):
        known = (tuple(row) if isinstance(row, list) else row) in scores
        # A row that ours lack was cut off by a tie with our last.
        assert (of(row) if known else last) == pytest.approx(of(own), **close), f"{where} {row}"
