"""The command lines of VALUE's evaluation against recorded result files."""

import json
from pathlib import Path

import pytest

import eval_vcmr
import eval_videoQA
import eval_violin
import eval_vr
import inf_tvc
import inf_vatex_en_c
import inf_yc2c
import two_stream_eval.eval_vcmr as two_stream_vcmr
import two_stream_eval.eval_videoQA as two_stream_qa
import two_stream_eval.eval_violin as two_stream_violin
import two_stream_eval.eval_vr as two_stream_vr
import two_stream_eval.inf_yc2c as two_stream_yc2c
from data.tokenize import load_tokenizer
from evaluation import retrieval_split
from scripts import export_model
from tests.support.recorded_value_runs import (
    STEP,
    assert_same_results,
    databases,
    read_results,
    recorded_run,
)
from utils.errors import UserError

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


TWO_STREAMS = [
    (two_stream_vcmr, "tvr", "tvr", "val", "tv"),
    (two_stream_vr, "yc2r_video_sub", "yc2r", "val", "yc2"),
    (two_stream_qa, "vlep", "vlep", "dev", "vlep"),
    (two_stream_violin, "violin", "violin", "val", "tv"),
]


@pytest.mark.parametrize(("script", "named", "task", "split", "corpus"), TWO_STREAMS)
def test_two_streams(golden_value, tmp_path, searched, script, named, task, split, corpus):
    video = recorded_run(golden_value, f"exp_{task}", tmp_path / "video")
    sub = recorded_run(golden_value, f"exp_{task}", tmp_path / "sub")
    words = databases(golden_value, corpus, f"{task}_{split}")
    if task == "tvr":
        words += ["--full_eval_tasks", "VCMR", "VR"]
    metrics = script.main([*two_runs(video, sub), "--task", named, "--split", split, *words])
    folder = f"results_{named}_{split}_two_stream"
    recorded = read_results(golden_value / "expected" / f"exp_{task}" / folder)
    ours = read_results(video / folder)
    assert [path.name for path in sub.iterdir() if path.name.startswith("results")] == []
    wanted = recorded_metrics(golden_value, f"exp_{task}/{folder}")
    if searched:
        assert_same_results(ours, recorded, searched)
        assert metrics[f"{'VCMR' if task == 'tvr' else 'VR'}/AveR"] == pytest.approx(wanted["AveR"])
    else:
        assert ours == recorded
        assert metrics["accuracy"] == pytest.approx(wanted["accuracy"], abs=0.01)


def test_averaged_probabilities(golden_value, value_recorded, tmp_path):
    run = recorded_run(golden_value, "exp_vlep", tmp_path)
    words = [*databases(golden_value, "vlep", "vlep_dev"), "--task", "vlep", "--split", "dev"]
    two_stream_qa.main([*two_runs(run, run), *words, "--save_logits"])
    folder = run / "results_vlep_dev_two_stream_w_logit"
    found = json.loads((folder / f"logits_{STEP}_all.json").read_text())
    assert found
    for id_, chances in found.items():
        assert chances == pytest.approx(value_recorded[f"vlep/two_stream/{id_}"].tolist(), abs=2e-4)


def two_runs(video: Path, sub: Path) -> list[str]:
    """Words that name the runs of both streams."""
    return [
        *("--video_only_model_dir", str(video), "--video_only_checkpoint", STEP),
        *("--sub_only_model_dir", str(sub), "--sub_only_checkpoint", STEP, "--n_workers", "0"),
    ]


CAPTIONS = [
    (inf_tvc, "tvc", "val", "tv"),
    (inf_yc2c, "yc2c", "val", "yc2"),
    (inf_vatex_en_c, "vatex_en_c", "test_public", "vatex"),
]


def clips_of(golden_value: Path, task: str, split: str) -> list[str]:
    """Words that name the clips to caption."""
    target = golden_value / "world" / "ann" / f"{task}_{split}_release.jsonl"
    return ["--target_clip", str(target), "--n_workers", "0", "--max_gen_step", "16"]


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.java
@pytest.mark.parametrize(("script", "task", "split", "corpus"), CAPTIONS)
def test_captions(golden_value, tmp_path, script, task, split, corpus):
    run = recorded_run(golden_value, f"exp_{task}", tmp_path)
    name = f"{task}_{split}_output.jsonl"
    words = ["--model_dir", str(run), "--ckpt_step", STEP, "--output", name]
    words += [*clips_of(golden_value, task, split), *databases(golden_value, corpus)]
    words += ["--toker", str(golden_value / "world" / "toker")]
    metrics = script.main(words)
    recorded = read_lines(golden_value / "expected" / f"exp_{task}" / name)
    ours = read_lines(run / name)
    assert [list(line.items()) for line in ours] == [list(line.items()) for line in recorded]
    wanted = recorded_metrics(golden_value, task)
    paragraphs = wanted.get("paragraph", {})
    flat = {**wanted.get("micro", wanted), **{f"paragraph/{k}": v for k, v in paragraphs.items()}}
    assert metrics == pytest.approx(flat, abs=1e-2)


@pytest.mark.parametrize("stream", ["sub_only", "video_only", "two_stream"])
def test_captions_of_channels(golden_value, tmp_path, stream):
    run = recorded_run(golden_value, "exp_yc2c", tmp_path)
    toker = str(golden_value / "world" / "toker")
    target = tmp_path / "yc2c_val_release.jsonl"  # without references: no metrics are wanted
    lines = read_lines(golden_value / "world" / "ann" / target.name)
    bare = [{key: value for key, value in line.items() if key != "descs"} for line in lines]
    bare[0]["ts"] = [0.0, 1.5]  # a clip is a whole video whatever it says
    target.write_text("".join(json.dumps(line) + "\n" for line in bare))
    words = ["--target_clip", str(target), "--max_gen_step", "16", "--toker", toker]
    words += [*databases(golden_value, "yc2"), "--n_workers", "0"]
    if stream == "two_stream":
        lists = [
            {"name": "yc2c_sub_only_val", "task": "videoCap", "vfeat_db": "", "sub_txt_db": ""}
        ]
        lists[0]["gt_anno"] = str(golden_value / "world" / "ann" / "yc2c_test_release.jsonl")
        other = recorded_run(golden_value, "exp_yc2c", tmp_path / "other", val_datasets=lists)
        lists[0]["gt_anno"] = str(target)
        run = recorded_run(golden_value, "exp_yc2c", tmp_path / "own", val_datasets=lists)
        with pytest.raises(UserError, match=r"caption other clips: .*--target_clip"):
            two_stream_yc2c.main([*two_runs(run, other), *words[2:]])
        assert two_stream_yc2c.main([*two_runs(run, run), *words]) == {}
        output = run / "results_yc2c_val_two_stream" / f"yc2c_val_step{STEP}.jsonl"
    else:
        words += ["--model_dir", str(run), "--checkpoint", STEP, "--channel", stream]
        assert inf_yc2c.main(words) == {}
        output = run / f"yc2c_val_step{STEP}.jsonl"
    recorded = json.loads((golden_value / "expected" / "greedy.json").read_text())[f"yc2c_{stream}"]
    decode = load_tokenizer(toker).decode
    assert {*map(tuple, read_lines(output))} == {("vid_name", "clip_id", "descs")}
    written = {str(line["clip_id"]): line["descs"][0]["desc"] for line in read_lines(output)}
    assert written == {clip: decode(ids) for clip, ids in recorded.items()}


def test_an_exported_model_is_evaluated_by_the_same_rules(golden_value, tmp_path):
    run = recorded_run(golden_value, "exp_yc2r", tmp_path)
    toker = str(golden_value / "world" / "toker")
    words = ["--run", str(run), "--checkpoint", STEP, "--output", str(tmp_path / "model")]
    export_model.main([*words, "--toker", toker])
    assert "task `yc2r`" in (tmp_path / "model" / "README.md").read_text()
    words = databases(golden_value, "yc2", "yc2r_val")
    own = evaluate(run, eval_vr, "yc2r", "val", words)
    words += ["--checkpoint", str(tmp_path / "model"), "--output_dir", str(tmp_path / "elsewhere")]
    assert eval_vr.main([*words, "--n_workers", "0"]) == own
    folder = "results_yc2r_val"
    (results,) = (tmp_path / "elsewhere" / folder).glob("results_*")
    assert json.loads(results.read_text()) == read_results(run / folder)
