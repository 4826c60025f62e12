"""What an evaluation follows: HERO's rules or VALUE's, the run, its lists, the command line."""

import json
from pathlib import Path

import numpy as np
import pytest

import eval_vcmr
import eval_vr
from config.config import (
    TvcInferenceOptions,
    VatexInferenceOptions,
    VcmrEvalOptions,
    VideoQaEvalOptions,
    ViolinEvalOptions,
    VrEvalOptions,
    Yc2cInferenceOptions,
    parse_options,
)
from config.groups import Channel
from engine.two_runs import TwoRuns
from evaluation.answers import AnsweredItem, AnsweredSplit
from evaluation.results import write_results
from evaluation.two_streams import average_answers
from tests.support import rankings, recorded
from tests.support.recorded_value_runs import STEP, databases, recorded_run
from utils.errors import UserError
from utils.files import write_json

TVR = {
    "task": "vcmr",
    "name": "tvr_video_sub_val",
    "sub_txt_db": "tv_subtitles.db",
    "vfeat_db": "tv",
    "query_txt_db": "tvr_val.db",
}
YC2C = {
    "task": "videoCap",
    "name": "yc2c_video_only_train",
    "sub_txt_db": None,
    "vfeat_db": "yc2",
    "cap_txt_db": ["yc2r_train.db"],
}
YC2C_VAL = {**YC2C, "name": "yc2c_video_only_val", "gt_anno": "yc2c_val_release.jsonl"}
VLEP = {
    "task": "videoQA",
    "name": "vlep_sub_only_dev",
    "sub_txt_db": "vlep_subtitles.db",
    "vfeat_db": "vlep",
    "query_txt_db": "vlep_dev.db",
}


@pytest.fixture
def a_run(tmp_path):
    """Makes the options of a run, with lists, and reads an evaluation of it."""

    def read(cls, *words: str, lists=(), **saved):
        log = tmp_path / "run" / "log"
        log.mkdir(parents=True, exist_ok=True)
        both = {"train_datasets": list(lists), "val_datasets": list(lists)} if lists else {}
        (log / "hps.json").write_text(json.dumps(both | saved))
        words = [f"--{cls.RUN_FOLDER}", str(tmp_path / "run"), "--checkpoint", "1", *words]
        return parse_options(cls, words)

    return read


@pytest.mark.golden
@pytest.mark.golden_value
def test_each_run_has_the_folder_and_the_form_of_its_rules(
    golden, golden_value, expected, world, tmp_path
):
    theirs = recorded.recorded_run(expected, "exp_tvr_raw", tmp_path / "hero")
    rankings.evaluate(theirs, world, "val")
    ours = recorded_run(golden_value, "exp_tvr", tmp_path / "value")
    words = [*databases(golden_value, "tv", "tvr_val"), "--split", "val", "--n_workers", "0"]
    eval_vcmr.main(["--output_dir", str(ours), "--checkpoint", STEP, *words])
    assert files_of(theirs) == ["results_val/metrics_1.json", "results_val/results_1_all.json"]
    assert files_of(ours) == [
        f"results_tvr_val/results_{STEP}_all.json",
        f"results_tvr_val/scores_{STEP}.json",
    ]
    found = json.loads((theirs / "results_val" / "results_1_all.json").read_text())
    assert list(found) == ["video2idx", "VCMR", "SVMR", "VR"]
    assert list(found["VCMR"][0]) == ["desc_id", "desc", "predictions"]
    assert len(found["VR"][0]["predictions"][0]) == 4
    found = json.loads((ours / "results_tvr_val" / f"results_{STEP}_all.json").read_text())
    assert list(found) == ["VCMR", "SVMR", "VR"]
    for task in ("VCMR", "SVMR"):
        assert list(found[task][0]) == ["desc_id", "predictions"]
        assert all(len(row) == 3 for row in found[task][0]["predictions"])
    assert all(isinstance(video, int) for video in found["VR"][0]["predictions"])


def files_of(run: Path) -> list[str]:
    return sorted(str(path.relative_to(run)) for path in run.glob("results_*/*"))


@pytest.mark.golden_value
def test_databases_come_from_the_lists_and_another_data_set_of_the_head_is_searched(
    golden_value, tmp_path
):
    run = recorded_run(golden_value, "exp_yc2r", tmp_path)
    words = ["--output_dir", str(run), "--checkpoint", STEP, "--n_workers", "0"]
    assert "VR/AveR" in eval_vr.main(words)
    more = ["--task", "vatex_en_r", "--split", "val"]
    assert eval_vr.main([*words, *more, *databases(golden_value, "vatex", "vatex_en_r_val")])
    assert {path.parent.name for path in run.glob("results_*/scores*")} == {
        "results_yc2r_val",
        "results_vatex_en_r_val",
    }
    moments = [*words, "--task", "tvr", *databases(golden_value, "tv", "tvr_val")]
    assert "VCMR/AveR" in eval_vcmr.main(moments)


def test_files_of_the_form(tmp_path):
    moments = np.array([[7, 1.5, 6.0, 0.5]])
    entry = {"desc_id": 3, "desc": "", "predictions": moments}
    results = {"video2idx": {"a": 7}, "VCMR": [entry], "VR": [entry | {"desc_id": "3"}]}
    write_results(tmp_path / "results.json", results, value=True)
    assert (tmp_path / "results.json").read_text() == (
        '{"VCMR": [{"desc_id": 3, "predictions": [[7, 1.5, 6.0]]}], '
        '"VR": [{"desc_id": "3", "predictions": [7]}]}'
    )
    write_results(tmp_path / "results.json", results | {"partial": {"videos": 1}}, value=True)
    assert json.loads((tmp_path / "results.json").read_text())["partial"] == {"videos": 1}


def test_what_the_run_lacks_is_the_recipes(a_run):
    opts = a_run(VcmrEvalOptions, "--query_txt_db", "q", no_fp16=True, vfeat_db="v", sub_txt_db="s")
    assert (opts.q2c_alpha, opts.min_pred_l, opts.max_pred_l, opts.nms_thd) == (20, 2, 16, -1)
    assert (opts.max_vcmr_video, opts.max_before_nms, opts.max_after_nms) == (100, 200, 100)
    assert (opts.fp16, opts.pin_mem, opts.task, opts.split) == (None, True, "tvr", "val")
    assert a_run(VcmrEvalOptions, lists=[TVR], q2c_alpha=5).q2c_alpha == 5
    given = a_run(VcmrEvalOptions, "--q2c_alpha", "9", "--no_fp16", "--no_pin_mem", lists=[TVR])
    assert (given.q2c_alpha, given.fp16, given.pin_mem) == (9, False, False)


def test_databases_of_the_entry_of_the_container_or_given(a_run):
    own = a_run(VcmrEvalOptions, lists=[TVR])
    assert (own.query_txt_db, own.sub_txt_db, own.vfeat_db) == (
        "tvr_val.db",
        "tv_subtitles.db",
        "tv",
    )
    test = a_run(VcmrEvalOptions, "--split", "test", lists=[TVR])
    assert (test.query_txt_db, test.vfeat_db) == ("/txt/tvr_test.db", "tv")
    other = a_run(VcmrEvalOptions, "--task", "how2r", "--vfeat_db", "mine", lists=[TVR])
    assert (other.query_txt_db, other.sub_txt_db) == (
        "/txt/how2r_val_1k.db",
        "/txt/how2_subtitles.db",
    )
    assert (other.vfeat_db, other.results_name) == ("mine", "results_how2r_val")
    flat = {"task": "tvr", "no_fp16": True, "val_query_txt_db": "a", "sub_txt_db": "b"}
    assert a_run(VcmrEvalOptions, **flat, vfeat_db="c").query_txt_db == "a"
    other = a_run(VcmrEvalOptions, "--task", "how2r", **flat, vfeat_db="c")
    assert (other.query_txt_db, other.vfeat_db) == ("/txt/how2r_val_1k.db", "/video/how2")


def test_a_mix_is_evaluated_by_the_script_of_each_kind(a_run):
    lists = [TVR, VLEP, YC2C_VAL]
    events = a_run(VideoQaEvalOptions, lists=lists)
    assert (events.task, events.split, events.channel) == ("vlep", "dev", "sub_only")
    assert events.results_name == "results_vlep_dev"
    statements = a_run(ViolinEvalOptions, lists=lists)
    assert (statements.query_txt_db, statements.channel) == ("/txt/violin_val.db", "video_sub")
    assert a_run(VrEvalOptions, lists=lists).vfeat_interval == 1.5
    opts = a_run(ViolinEvalOptions, "--split", "test_private", lists=lists)
    assert opts.query_txt_db == "/txt/violin_test_private.db"


def test_the_channel_is_the_runs_or_given(a_run):
    lists = [TVR | {"name": "tvr_sub_only_val"}]
    assert a_run(VcmrEvalOptions, lists=lists).channel == Channel.SUB_ONLY
    assert a_run(VcmrEvalOptions, "--task", "how2r", lists=lists).channel == Channel.SUB_ONLY
    opts = a_run(VcmrEvalOptions, "--channel", "video_sub", lists=lists)
    assert opts.channel == Channel.VIDEO_SUB
    alone = [TVR | {"name": "tvr_video_only_val", "sub_txt_db": None}]
    opts = a_run(VcmrEvalOptions, lists=alone)
    assert (opts.channel, opts.sub_txt_db) == (Channel.VIDEO_ONLY, None)
    opts = a_run(VcmrEvalOptions, "--channel", "video_sub", lists=alone)
    assert opts.sub_txt_db == "/txt/tv_subtitles.db"


def test_captions_options(a_run, tmp_path):
    lists = [YC2C_VAL]
    opts = a_run(Yc2cInferenceOptions, lists=lists, val_batch_size=3)
    assert (opts.val_batch_size, opts.target_clip) == (16, "yc2c_val_release.jsonl")
    assert (opts.sub_txt_db, opts.cap_txt_db, opts.channel) == (
        None,
        "yc2r_train.db",
        "video_only",
    )
    assert opts.output_file("7") == tmp_path / "run" / "yc2c_val_step7.jsonl"
    opts = a_run(VatexInferenceOptions, "--output", "x.jsonl", lists=lists)
    assert (opts.val_batch_size, opts.sub_txt_db) == (96, None)
    assert opts.target_clip == "/txt/vatex_en_c_test_public_release.jsonl"
    assert opts.output_file("7") == tmp_path / "run" / "x.jsonl"
    opts = a_run(TvcInferenceOptions, "--batch_size", "4", no_fp16=False)
    assert (opts.val_batch_size, opts.fp16, opts.sub_txt_db) == (4, None, "/txt/tv_subtitles.db")
    assert opts.output_file("7") == tmp_path / "run" / "tvc_test_step7.jsonl"


HERO = {"task": "tvr", "val_query_txt_db": "q", "sub_txt_db": "s", "vfeat_db": "v", "fp16": True}


def test_heros_runs_keep_their_rules(a_run):
    opts = a_run(VcmrEvalOptions, **HERO)
    assert (opts.fp16, opts.pin_mem, opts.results_name) == (False, False, "results_val")
    for words, said in (
        (("--split", "dev", "--query_txt_db", "q"), "must be one of train, val, test, test_public"),
        (("--channel", "sub_only"), "channel = sub_only must be null"),
        (("--vid2dur_idx", "x.json"), "vid2dur_idx = x.json must be null"),
    ):
        with pytest.raises(UserError, match=said):
            a_run(VcmrEvalOptions, *words, **HERO)
    with pytest.raises(UserError, match="task = yc2r must be one of msrvtt_video_sub"):
        a_run(VrEvalOptions, "--task", "yc2r", **HERO | {"task": "msrvtt_video_sub"})
    with pytest.raises(UserError, match="missing options: --output"):
        a_run(TvcInferenceOptions, "--target_clip", "x", **HERO)


@pytest.mark.parametrize(
    ("cls", "words", "said"),
    [
        (VcmrEvalOptions, ["--task", "didemo_video_sub"], "task = didemo_video_sub must be one of"),
        (VcmrEvalOptions, ["--split", "dev"], "split = dev must be one of train, val, test"),
        (VrEvalOptions, ["--task", "msrvtt_video_sub"], "must be one of yc2r, vatex_en_r"),
        (VideoQaEvalOptions, ["--task", "vlep", "--split", "val"], "one of train, dev, test"),
    ],
)
def test_what_a_run_by_values_rules_does_not_know(a_run, cls, words, said):
    with pytest.raises(UserError, match=said):
        a_run(cls, *words, lists=[TVR])


def test_two_runs_are_read_with_a_channel_each(a_run, tmp_path):
    a_run(VcmrEvalOptions, lists=[TVR])
    video = {"train_datasets": [TVR | {"name": "tvr_video_only_val", "sub_txt_db": None}]}
    write_json(tmp_path / "video" / "log" / "hps.json", video)
    run = str(tmp_path / "run")
    words = ["--video_only_model_dir", str(tmp_path / "video"), "--video_only_checkpoint", "1"]
    words += ["--sub_only_model_dir", run, "--sub_only_checkpoint", "2", "--split", "test"]
    runs = TwoRuns.parse(VcmrEvalOptions, words)
    assert (runs.video.channel, runs.video.checkpoint) == ("video_only", "1")
    assert (runs.sub.channel, runs.sub.checkpoint, runs.task) == ("sub_only", "2", "tvr")
    assert runs.video.sub_txt_db == runs.sub.sub_txt_db == "tv_subtitles.db"
    given = TwoRuns.parse(VcmrEvalOptions, [*words, "--sub_txt_db", "mine"])
    assert given.video.sub_txt_db == given.sub.sub_txt_db == "mine"
    named = TwoRuns.parse(VrEvalOptions, [*words[:-1], "val", "--task", "vatex_video_sub"])
    assert (named.video.task, named.task) == ("vatex_en_r", "vatex_video_sub")
    with pytest.raises(UserError, match="--sub_only_model_dir"):
        TwoRuns.parse(VcmrEvalOptions, words[:4])
    how2r = TVR | {"name": "how2r_video_sub_val"}
    write_json(tmp_path / "video" / "log" / "hps.json", {"val_datasets": [how2r], "no_fp16": True})
    with pytest.raises(UserError, match=r"are of how2r and of tvr: name the data set .*--task"):
        TwoRuns.parse(VcmrEvalOptions, words[:-2])
    assert TwoRuns.parse(VcmrEvalOptions, [*words, "--task", "tvr"]).video.task == "tvr"


def answered(scores, target, loss, id_="1"):
    item = AnsweredItem(id_, 0, target, scores, {loss: 9.0, "other": 9.0})
    return AnsweredSplit([item], {loss: int(target >= 0)})


def test_answers_are_averaged_as_probabilities():
    """By hand: softmax of ln 3, 0 is 3/4, 1/4; of 0, 0 it is 1/2, 1/2."""
    streams = [answered(scores, 1, "qa") for scores in ([np.log(3), 0.0], [0.0, 0.0])]
    (item,) = average_answers(streams, "qa").items
    assert item.scores == pytest.approx([0.625, 0.375])
    assert (item.answer, item.losses) == (0, {"qa": pytest.approx(-np.log(0.375))})
    streams = [answered(scores, -1, "violin") for scores in (np.log(4), -np.log(2))]
    split = average_answers(streams, "violin")
    assert split.items[0].scores == pytest.approx((0.8 + 1 / 3) / 2)
    assert (split.items[0].answer, split.items[0].losses) == (1, {"violin": 0.0})
    assert split.accuracy is None
    streams = [answered(0.0, 1, "violin", id_) for id_ in "ab"]
    with pytest.raises(UserError, match=r"answer other .*--query_txt_db"):
        average_answers(streams, "violin")
