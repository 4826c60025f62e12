"""The command lines of VALUE's evaluation against recorded result files."""

import json
from pathlib import Path

import pytest

import eval_vcmr
import eval_videoQA
import eval_violin
import eval_vr
from evaluation import retrieval_split
from tests.recorded_value_runs import (
    STEP,
    assert_same_results,
    databases,
    read_results,
    recorded_run,
)

pytestmark = pytest.mark.golden_value

RETRIEVAL = [
    ("yc2r", "val", "yc2", True),
    ("yc2r", "test", "yc2", False),
    ("vatex_en_r", "val", "vatex", True),
    ("vatex_en_r", "test_public", "vatex", False),
    ("tvr", "val", "tv", True),
]
ANSWERS = [
    (eval_videoQA, "vlep", "dev", "vlep", "valid/{}"),
    (eval_videoQA, "vlep", "test", "vlep", None),
    (eval_violin, "violin", "val", "tv", "valid/val_{}"),
    (eval_violin, "violin", "test_private", "tv", None),
]


@pytest.fixture
def searched(monkeypatch) -> dict:
    """What the last search found, scores and all: by list and query, each prediction's."""
    found: dict = {}
    search = retrieval_split.evaluate_corpus

    def remember(*arguments, **options):
        results = search(*arguments, **options)
        for task in ("VCMR", "VR"):
            found[task] = {
                str(entry["desc_id"]): {
                    (int(row[0]) if task == "VR" else (int(row[0]), *row[1:3])): row[3]
                    for row in entry["predictions"].tolist()
                }
                for entry in results.get(task, [])
            }
        return results

    monkeypatch.setattr(retrieval_split, "evaluate_corpus", remember)
    return found


def recorded_metrics(golden_value: Path, where: str) -> dict:
    return json.loads((golden_value / "expected" / "metrics.json").read_text())[where]


def evaluate(run: Path, script, task: str, split: str, words: list[str]) -> dict:
    """Call a script as a user does."""
    return script.main(
        [
            *("--output_dir", str(run), "--checkpoint", STEP, "--task", task, "--split", split),
            *("--n_workers", "0", *words),
        ]
    )


@pytest.mark.parametrize(("task", "split", "corpus", "has_truth"), RETRIEVAL)
def test_retrieval(golden_value, tmp_path, searched, task, split, corpus, has_truth):
    run = recorded_run(golden_value, f"exp_{task}", tmp_path)
    words = databases(golden_value, corpus, f"{task}_{split}")
    script = eval_vr
    if task == "tvr":
        script, words = eval_vcmr, [*words, "--full_eval_tasks", "VCMR", "VR"]
    metrics = evaluate(run, script, task, split, words)
    folder = f"results_{task}_{split}"
    recorded = read_results(golden_value / "expected" / f"exp_{task}" / folder)
    assert_same_results(read_results(run / folder), recorded, searched)
    scores = run / folder / f"scores_{STEP}.json"
    assert sorted(path.name for path in run.iterdir()) == ["ckpt", "log", folder]
    if not has_truth:
        assert metrics == {} and not scores.exists()
        return
    wanted = recorded_metrics(golden_value, f"exp_{task}/{folder}")
    average = wanted.pop("AveR")
    assert metrics[f"{'VCMR' if task == 'tvr' else 'VR'}/AveR"] == pytest.approx(average)
    saved = json.loads(scores.read_text())
    for kind, values in wanted.items():
        for name, value in values.items():
            assert metrics[f"{kind}/{name}"] == pytest.approx(value, abs=0.01), name
            assert saved[f"valid_{split}_{kind}/{kind}_{name}"] == metrics[f"{kind}/{name}"]


@pytest.mark.parametrize(("script", "task", "split", "corpus", "key"), ANSWERS)
def test_answers(golden_value, tmp_path, script, task, split, corpus, key):
    run = recorded_run(golden_value, f"exp_{task}", tmp_path)
    words = databases(golden_value, corpus, f"{task}_{split}")
    metrics = evaluate(run, script, task, split, words)
    folder = f"results_{task}_{split}"
    assert read_results(run / folder) == read_results(
        golden_value / "expected" / f"exp_{task}" / folder
    )
    scores = run / folder / f"scores_{STEP}.json"
    assert not list(run.glob(f"{folder}/metrics*"))
    if key is None:
        assert metrics == {} and not scores.exists()
        return
    wanted = recorded_metrics(golden_value, f"exp_{task}/{folder}")
    assert metrics["accuracy"] == pytest.approx(wanted["accuracy"], abs=0.01)
    loss = pytest.approx(wanted["loss"], abs=2e-4)
    accuracy = pytest.approx(wanted["accuracy"] / 100)
    assert json.loads(scores.read_text()) == {
        key.format("loss"): loss,
        key.format("acc"): accuracy,
    }
