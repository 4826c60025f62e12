"""Evaluating retrieval as a user does, and comparing what is ranked with the record."""

from pathlib import Path
from types import ModuleType

import pytest

import eval_vcmr

RELATIVE = 3e-4  # of scores: exponentials of 20 × a float32 cosine


def evaluate(
    run: Path, world: Path, split: str, *more: str, script: ModuleType = eval_vcmr, db: str = "tvr"
) -> dict:
    """Call the script as a user does; returns its metrics."""
    return script.main(
        [
            *("--query_txt_db", str(world / "txt_db" / f"{db}_{split}.db"), "--split", split),
            *("--vfeat_db", str(world / "video_db" / "tv")),
            *("--sub_txt_db", str(world / "txt_db" / "tv_subtitles.db")),
            *("--output_dir", str(run), "--checkpoint", "1", "--n_workers", "0", *more),
        ]
    )


def assert_same_ranking(actual: dict, recorded: dict, absolute: float = 0.0) -> None:
    """The same predictions with the same scores; only ties may change places."""
    assert actual["video2idx"] == recorded["video2idx"]
    assert actual.keys() == recorded.keys()
    for task in ("VCMR", "SVMR", "VR"):
        if task not in recorded:
            continue
        theirs = {entry["desc_id"]: entry for entry in recorded[task]}
        assert [entry["desc_id"] for entry in actual[task]] == list(theirs)
        for entry in actual[task]:
            where = f"{task} {entry['desc_id']}"
            wanted = real_predictions(theirs[entry["desc_id"]]["predictions"])
            assert_same_list(entry["predictions"], wanted, where, absolute)


def real_predictions(predictions: list) -> list:
    """Without the zero-score pairs that fill up recorded short lists."""
    return [row for row in predictions if row[3] != 0]


def assert_same_list(ours: list, wanted: list, where: str, absolute: float) -> None:
    assert len(ours) >= len(wanted) > 0, where
    scores = {tuple(row[:3]): row[3] for row in ours}
    last = ours[-1][3]  # which of those that tie with it still stand in a full list is chance
    for row in wanted:
        score = scores.get(tuple(row[:3]), last)
        assert score == pytest.approx(row[3], rel=RELATIVE, abs=absolute), f"{where} {row}"
    for (*_, ours_score), (*_, score) in zip(ours, wanted, strict=False):
        assert ours_score == pytest.approx(score, rel=RELATIVE, abs=absolute), where
