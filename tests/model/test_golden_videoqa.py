"""Video question answering against the record."""

import json

import numpy as np
import pytest
import torch

import train_videoQA
from config.config import VideoQaEvalOptions, load_run_options
from data.stores.lmdb_io import TextDb, TextDbWriter
from data.videoQA import QuestionDataset
from scripts.demo_corpus.answer_report import plot_answers, view_questions
from tests.support.recorded import assert_recorded, placed, recorded_source, saved
from tests.support.recorded_answers import TVQA, VIOLIN

pytestmark = [pytest.mark.golden, pytest.mark.device]
both = pytest.mark.parametrize("task", [TVQA, VIOLIN], ids=lambda task: task.name)


@pytest.fixture(scope="module")
def model(expected):
    return TVQA.model(expected).eval()


@pytest.fixture(scope="module")
def data(world):
    return TVQA.data(world)


@torch.no_grad()
def test_logits_and_losses(model, data, recorded):
    without_span = 0
    for number, qid in enumerate(data.ids):
        answers = model.answer(TVQA.batch(data, number))
        assert_recorded(answers.scores[0], recorded[f"tvqa/logits/{qid}"], qid)
        qa, span = recorded[f"tvqa/loss/{qid}"]
        assert answers.losses["qa"].item() == pytest.approx(qa, abs=2e-4)
        without_span += int(np.isnan(span))
        assert answers.losses["st_ed"].item() == pytest.approx(np.nan_to_num(span), abs=2e-4)
    assert 0 < without_span < len(data)


@torch.no_grad()
def test_questions_alone_equal_questions_in_a_mixed_batch(model, data):
    items = [data[number] for number in range(len(data))]
    assert len({item.video.num_frames for item in items}) > 1
    together = model.answer(TVQA.batch(data))
    alone = [model.answer(TVQA.batch(data, number)) for number in range(len(data))]
    torch.testing.assert_close(
        together.scores, torch.cat([one.scores for one in alone]), atol=1e-5, rtol=0
    )
    for name, losses in together.losses.items():
        separate = torch.cat([one.losses[name] for one in alone])
        torch.testing.assert_close(losses, separate, atol=1e-5, rtol=0)


def test_training_losses_are_means_over_the_questions_with_a_target(model, data):
    batch = TVQA.batch(data)
    per_question = model(batch)
    model.train()
    try:
        means = model(batch)
    finally:
        model.eval()
    with_span = (batch.spans[:, 0] >= 0).sum()
    assert 0 < with_span < len(data)
    torch.testing.assert_close(means["qa"], per_question["qa"].mean())
    torch.testing.assert_close(means["st_ed"], per_question["st_ed"].sum() / with_span)


def test_a_batch_without_any_span_has_span_loss_zero(expected, data):
    items = [item for item in map(data.__getitem__, range(len(data))) if item.span == (-1, -1)]
    model = TVQA.model(expected).train()
    losses = model(placed(data.collate(items[:2])))
    assert losses["st_ed"].item() == 0.0
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_features_are_in_a_batch_once_however_many_answers(data):
    item = data[0]
    batch = data.collate([item])
    assert len(batch.candidates.video.features) == item.video.num_frames
    assert batch.candidates.copies == len(item.texts) > 1


@torch.no_grad()
def test_four_answers_score_as_the_first_four_of_five(model, data, world, recorded, tmp_path):
    with TextDbWriter(tmp_path / "how2qa.db") as writer:
        for qid in data.ids:
            record = data.db[qid]
            record["input_ids"] = record["input_ids"][:5]
            writer.put(qid, record | {"target": min(record["target"], 3)})
        lengths = data.db.side("id2len.json")
        writer.write_side("id2len.json", {qid: value[:5] for qid, value in lengths.items()})
        writer.write_side("query2video.json", data.db.side("query2video.json"))
        writer.write_side("meta.json", data.db.meta)
    four = QuestionDataset(TextDb(tmp_path / "how2qa.db"), recorded_source(world))
    answers = model.answer(TVQA.batch(four))
    for scores, qid in zip(answers.scores, four.ids, strict=True):
        assert_recorded(scores, recorded[f"tvqa/logits/{qid}"][:4], qid)


def test_what_the_demo_shows_is_what_the_model_says(model, data, recorded):
    """Probabilities of answers and of a moment's ends, against the recorded logits and losses."""
    batch = TVQA.batch(data)
    spans = 0
    for number, (qid, view) in enumerate(zip(data.ids, view_questions(model, batch), strict=True)):
        frames = data[number].video.num_frames
        logits = torch.from_numpy(recorded[f"tvqa/logits/{qid}"])
        assert view.probabilities == pytest.approx(logits.softmax(dim=-1).tolist(), abs=1e-4)
        assert [len(weights) for weights in view.attention] == [frames] * 5
        assert [sum(weights) for weights in view.attention] == pytest.approx([1.0] * 5)
        assert (len(view.first), len(view.last)) == (frames, frames)
        if batch.spans[number, 0] >= 0:
            first, last = batch.spans[number].tolist()
            loss = -np.log([view.first[first], view.last[last]]).mean()
            assert loss == pytest.approx(recorded[f"tvqa/loss/{qid}"][1], abs=2e-4)
            spans += 1
    assert spans > 0


def test_the_picture_of_answers(expected, world, tmp_path):
    given = {
        **{"query_txt_db": str(world / "txt_db/tvqa_val.db"), "checkpoint": "1"},
        **{"sub_txt_db": str(world / "txt_db/tv_subtitles.db")},
        **{"vfeat_db": str(world / "video_db/tv"), "split": "val"},
    }
    run = TVQA.run_folder(expected, tmp_path)
    options = load_run_options(VideoQaEvalOptions, run, given)
    plot_answers(options, tmp_path / "answers.png", how_many=2)
    assert (tmp_path / "answers.png").read_bytes().startswith(b"\x89PNG")


@both
def test_weight_names_are_the_contract(expected, task):
    own, contract = task.contract(expected)
    assert own == contract


def test_result_file_and_metrics(expected, world, tmp_path):
    run = TVQA.run_folder(expected, tmp_path)
    metrics = TVQA.evaluate_run(run, world)
    assert saved(run) == saved(expected / "exp_tvqa")
    loss, accuracy = TVQA.recorded_metrics(expected, "eval_videoQA.py")
    assert metrics["loss/qa"] == pytest.approx(loss, abs=0.006)
    assert metrics["accuracy"] == accuracy
    assert json.loads((run / "results_val" / "metrics_1.json").read_text()) == metrics


def test_saved_logits_and_compressed_features(expected, world, tmp_path):
    plain = TVQA.run_folder(expected, tmp_path / "plain")
    TVQA.evaluate_run(plain, world, "--save_logits", "--batch_size", "3")
    compressed = TVQA.run_folder(expected, tmp_path / "compressed")
    TVQA.evaluate_run(compressed, world, "--save_logits", "--batch_size", "3", "--compressed_db")
    folder = "results_val_w_logit"
    logits = saved(plain, "logits", folder)
    assert saved(compressed, "logits", folder) == logits
    assert {qid: int(np.argmax(row)) for qid, row in logits.items()} == saved(plain, folder=folder)
    assert not (plain / "results_val").exists()


def test_a_split_without_answers(expected, world, data, tmp_path):
    databases = tmp_path / "world" / "txt_db"
    with TextDbWriter(databases / "tvqa_val.db") as writer:
        for qid in data.ids:
            record = data.db[qid] | {"target": None, "ts": "NaN-NaN"}
            del record["answer_idx"]
            writer.put(qid, record)
        for name in ("id2len.json", "query2video.json", "meta.json"):
            writer.write_side(name, json.loads((data.db.path / name).read_text()))
    (databases / "tv_subtitles.db").symlink_to(world / "txt_db" / "tv_subtitles.db")
    (tmp_path / "world" / "video_db").symlink_to(world / "video_db")
    run = TVQA.run_folder(expected, tmp_path)
    assert TVQA.evaluate_run(run, tmp_path / "world") == {}
    assert saved(run) == saved(expected / "exp_tvqa")
    assert [path.name for path in (run / "results_val").iterdir()] == ["results_1_all.json"]


@pytest.mark.parametrize("size", [2, 5])
def test_ranks_answer_what_one_process_answers(expected, world, size):
    (alone,) = TVQA.answer_on_ranks(expected, world, 1)
    for split in TVQA.answer_on_ranks(expected, world, size):
        assert split == alone
    assert alone.counts["qa"] == len(alone.items) > alone.counts["st_ed"] > 0


@both
def test_training_steps(expected, world, tmp_path, task):
    task.assert_trains_as_recorded(expected, world, tmp_path)


def test_the_training_script_validates_into_results(expected, world, tmp_path):
    metrics = train_videoQA.main(
        [
            *("--train_query_txt_db", str(world / "txt_db" / "tvqa_train.db")),
            *("--val_query_txt_db", str(world / "txt_db" / "tvqa_val.db")),
            *("--sub_txt_db", str(world / "txt_db" / "tv_subtitles.db")),
            *("--vfeat_db", str(world / "video_db" / "tv")),
            *("--model_config", str(expected / "model_finetune.json")),
            *("--checkpoint", str(expected / "pretrained.pt")),
            *("--output_dir", str(tmp_path), "--num_train_steps", "1", "--n_workers", "0"),
            *("--train_batch_size", "2", "--lw_st_ed", "0.5"),
        ]
    )
    assert set(metrics) == {"accuracy", "loss/qa", "loss/st_ed", "loss/total"}
    assert metrics["loss/total"] == pytest.approx(metrics["loss/qa"] + metrics["loss/st_ed"])
    results = json.loads((tmp_path / "results" / "results_1_all.json").read_text())
    assert set(results) == set(TVQA.data(world).ids)
    assert (tmp_path / "ckpt" / "model_step_1.pt").exists()
