"""Options: where values come from, what is refused, what a saved run gives back."""

import json
import logging
import os
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path

import pytest

from config.config import (
    PretrainOptions,
    TvcInferenceOptions,
    TvcOptions,
    VcmrEvalOptions,
    VcmrOptions,
    VideoQaEvalOptions,
    VideoQaOptions,
    ViolinEvalOptions,
    ViolinOptions,
    VrEvalOptions,
    VrOptions,
    changed_options,
    load_run_options,
    options_to_dict,
    parse_options,
)
from tests.support import REPOSITORY, THEIRS
from utils.errors import UserError
from utils.files import write_json

TRAINING = [VcmrOptions, VrOptions, VideoQaOptions, ViolinOptions, TvcOptions, PretrainOptions]
EVALUATION = [VcmrEvalOptions, VrEvalOptions, VideoQaEvalOptions, ViolinEvalOptions]

VCMR = ["--train_query_txt_db", "train.db", "--val_query_txt_db", "val.db"]
VCMR += ["--sub_txt_db", "sub.db", "--vfeat_db", "video", "--output_dir", "run"]

CORPUS = {
    "name": "tv",
    "sub_txt_db": "tv_subtitles.db",
    "vfeat_db": "tv",
    "splits": [
        {
            "name": "all",
            "tasks": ["mlm", "mfm-nce"],
            "train_idx": "splits/train.json",
            "val_idx": "/else/val.json",
            "ratio": [2, 1],
        }
    ],
}


def vcmr(*words: str) -> VcmrOptions:
    return parse_options(VcmrOptions, [*VCMR, *words])


def json_file(path: Path, **values: object) -> str:
    write_json(path, values)
    return str(path)


def corpus(**changes: object) -> dict:
    return {**CORPUS, **changes}


def pretrain(path: Path, *words: str, **values: object) -> PretrainOptions:
    config = json_file(path / "pretrain.json", **{"targets": [CORPUS], **values})
    return parse_options(PretrainOptions, ["--config", config, "--output_dir", "run", *words])


# --- where a value comes from -------------------------------------------------------------------


def test_command_line_beats_json_beats_default(tmp_path):
    config = json_file(tmp_path / "c.json", learning_rate=3e-4, margin=0.2)
    opts = vcmr("--config", config, "--margin", "0.3")
    assert (opts.learning_rate, opts.margin, opts.lr_mul) == (3e-4, 0.3, 1.0)


def test_switches_turn_on_and_off(tmp_path):
    config = json_file(tmp_path / "c.json", fp16=True, pin_mem=True)
    opts = vcmr("--config", config, "--no_fp16", "--bf16", "--no_use_all_neg")
    assert (opts.fp16, opts.bf16, opts.pin_mem, opts.use_all_neg) == (False, True, True, False)


def test_lists_and_negative_numbers_on_the_command_line():
    opts = vcmr("--betas", "0.8", ".99", "--nms_thd", "-1", "--full_eval_tasks", "VR", "SVMR")
    assert opts.betas == [0.8, 0.99]
    assert opts.nms_thd == -1.0 and type(opts.nms_thd) is float
    assert opts.full_eval_tasks == ["VR", "SVMR"]


def test_an_integer_serves_for_a_number(tmp_path):
    opts = vcmr("--config", json_file(tmp_path / "c.json", nms_thd=-1, hard_neg_weights=[10]))
    assert type(opts.nms_thd) is float and type(opts.hard_neg_weights[0]) is float


@pytest.mark.parametrize("name", ["hard_negtiave_start_step", "hard_negative_start_step"])
def test_both_spellings_of_the_hard_negative_start(tmp_path, name):
    assert vcmr(f"--{name}", "-1").hard_negtiave_start_step == [-1]
    config = json_file(tmp_path / "c.json", **{name: [30]})
    assert vcmr("--config", config).hard_negtiave_start_step == [30]


def test_other_name_of_the_query_batch_size(tmp_path):
    assert vcmr("--vcmr_eval_batch_size", "7").vcmr_eval_q_batch_size == 7
    config = json_file(tmp_path / "c.json", vcmr_eval_batch_size=8)
    assert vcmr("--config", config).vcmr_eval_q_batch_size == 8


def test_null_stands_for_no_value(tmp_path):
    config = json_file(tmp_path / "c.json", checkpoint="weights.pt")
    assert vcmr("--config", config).checkpoint == "weights.pt"
    assert vcmr("--config", config, "--checkpoint", "null").checkpoint is None


def test_steps_that_follow_from_others():
    opts = vcmr("--num_train_steps", "90", "--valid_steps", "30")
    assert (opts.warmup_steps, opts.save_steps, opts.restore_steps) == (9, 30, 30)
    opts = vcmr("--warmup_steps", "0", "--save_steps", "7", "--restore_steps", "3")
    assert (opts.warmup_steps, opts.save_steps, opts.restore_steps) == (0, 7, 3)


def test_options_do_not_change():
    with pytest.raises(FrozenInstanceError):
        vcmr().seed = 1


def test_two_instances_share_no_list():
    vcmr().betas.append(1.0)
    assert vcmr().betas == [0.9, 0.98]


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lerning_rate", "1"], "unknown argument --lerning_rate; did you mean --learning_rate?"),
        (["--learning-rate=1"], "did you mean --learning_rate?"),
        (["--no_pinmem"], "did you mean --no_pin_mem?"),
        (["--zzzz"], "unknown argument --zzzz; --help lists the options"),
        (["--learn", "1"], "unknown argument --learn;"),
        (["stray"], "unknown argument stray"),
        (["--seed"], "--seed: expected 1 argument"),
        (["--seed", "1.5"], 'option --seed: expected an integer, got "1.5"'),
        (["--margin", "wide"], 'option --margin: expected a number, got "wide"'),
        (["--margin", "nan"], "option --margin: expected a number"),
        (["--task", "tvqa"], "option --task: expected one of tvr, how2r, didemo_video_sub"),
        (["--full_eval_tasks", "VR", "X"], "expected one of VCMR, SVMR, VR"),
        (["--train_batch_size", "0"], "option train_batch_size = 0 must be greater than 0"),
        (["--dropout", "1"], "option dropout = 1.0 must be at least 0 and below 1"),
        (["--drop_svmr_prob", "1.1"], "option drop_svmr_prob = 1.1 must be from 0 to 1"),
        (["--max_clip_len", "0"], "option max_clip_len = 0 must be greater than 0, or -1"),
        (["--grad_norm", "-2"], "option grad_norm = -2.0 must be"),
        (["--train_span_start_step", "-2"], "option train_span_start_step = -2 must be 0 or more"),
        (["--nms_thd", "1.5"], "option nms_thd = 1.5 must be from 0 to 1, or -1"),
        (["--betas", "0.9"], "option betas = 0.9 must be two numbers"),
        (["--warmup_steps", "9999"], "option warmup_steps = 9999 must be at most num_train_steps"),
        (["--min_pred_l", "16"], "option min_pred_l = 16 must be below max_pred_l (16)"),
        (["--hard_pool_size", "8", "9"], "option hard_neg_weights = 10.0 must be as long as"),
        (["--fp16", "--bf16"], "option fp16 = True must be off (--no_fp16) when bf16 is on"),
        (["--config", "absent.json"], "absent.json does not exist"),
    ],
)
def test_mistakes_on_the_command_line(words, message):
    with pytest.raises(UserError) as caught:
        vcmr(*words)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_vcmr_vido": 5}, "unknown option 'max_vcmr_vido'; did you mean max_vcmr_video?"),
        (
            {"train_batchsize": 5},
            "unknown option 'train_batchsize'; did you mean train_batch_size?",
        ),
        ({"zzzz": 5}, "unknown option 'zzzz'; --help lists the options"),
        ({"seed": "77"}, 'option seed: expected an integer, got "77"'),
        ({"seed": True}, "option seed: expected an integer, got true"),
        ({"fp16": 1}, "option fp16: expected true or false, got 1"),
        ({"seed": None}, "option seed: expected an integer, got null"),
        ({"hard_pool_size": 20}, "option hard_pool_size: expected a list (an integer each)"),
        ({"hard_pool_size": [2.5]}, "option hard_pool_size: [0]: expected an integer, got 2.5"),
        (
            {"hard_negative_start_step": [1], "hard_negtiave_start_step": [2]},
            "hard_negtiave_start_step and hard_negative_start_step are one option; keep one",
        ),
    ],
)
def test_mistakes_in_json(tmp_path, values, message):
    config = json_file(tmp_path / "c.json", **values)
    with pytest.raises(UserError) as caught:
        vcmr("--config", config)
    assert message in str(caught.value)
    assert config in str(caught.value)


def test_json_must_be_an_object(tmp_path):
    (tmp_path / "c.json").write_text("[1]")
    with pytest.raises(UserError, match="expected an object"):
        vcmr("--config", str(tmp_path / "c.json"))


def test_an_option_of_another_script_is_reported_not_used(tmp_path, caplog):
    config = json_file(tmp_path / "c.json", max_gen_step=30, seed=5)
    assert vcmr("--config", config).seed == 5
    assert "no effect in this script: max_gen_step" in caplog.text
    with pytest.raises(UserError, match="unknown argument --max_gen_step"):
        vcmr("--max_gen_step", "30")


def test_all_missing_options_are_listed():
    with pytest.raises(UserError) as caught:
        parse_options(VcmrOptions, ["--vfeat_db", "video", "--sub_txt_db", "sub.db"])
    expected = "missing options: --train_query_txt_db, --val_query_txt_db, --output_dir ("
    assert str(caught.value).startswith(expected)


def test_subtitles_are_needed_unless_the_task_is_video_only():
    words = VCMR[:4] + VCMR[6:]
    with pytest.raises(UserError, match=r"missing options: --sub_txt_db .*tvr reads"):
        parse_options(VcmrOptions, words)
    opts = parse_options(VcmrOptions, [*words, "--task", "didemo_video_only"])
    assert opts.sub_txt_db is None


# --- files and command lines of the original -----------------------------------------------------

THEIR_RUNS = {
    "run_tvr": (VcmrOptions, VcmrEvalOptions),
    "run_vr": (VrOptions, VrEvalOptions),
    "run_tvqa": (VideoQaOptions, VideoQaEvalOptions),
    "run_violin": (ViolinOptions, ViolinEvalOptions),
    "run_tvc": (TvcOptions, TvcInferenceOptions),
    "run_pretrain": (PretrainOptions, None),
}


def their_options(run: str) -> dict:
    return json.loads((THEIRS / run / "log" / "hps.json").read_text())


@pytest.mark.parametrize("run", THEIR_RUNS)
def test_their_hps_is_a_config(run, caplog):
    """Every value of an option that we have is read; the other keys are listed in one line."""
    cls, theirs = THEIR_RUNS[run][0], their_options(run)
    opts = options_to_dict(parse_options(cls, ["--config", str(THEIRS / run / "log" / "hps.json")]))
    targets = theirs.pop("targets", [])
    assert [target["name"] for target in opts.get("targets", [])] == [t["name"] for t in targets]
    shared = opts.keys() & theirs.keys()
    assert {key: opts[key] for key in shared} == {key: theirs[key] for key in shared}
    (left,) = [r.getMessage() for r in caplog.records if "no effect in this script" in r.message]
    named = set(left.partition("script: ")[2].split(", "))
    batch_sizes = {"vcmr_eval_batch_size", "vr_eval_video_batch_size", "vr_eval_q_batch_size"}
    assert named == theirs.keys() - shared - batch_sizes
    assert {"rank"} <= named and not [r for r in caplog.records if "leaves out" in r.message]


@pytest.mark.parametrize("run", [run for run, (_, cls) in THEIR_RUNS.items() if cls])
def test_evaluation_reads_their_hps(run, tmp_path, caplog):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "hps.json").write_text(json.dumps(their_options(run)))
    cls, theirs = THEIR_RUNS[run][1], their_options(run)
    given = {"checkpoint": "1"}
    if cls is TvcInferenceOptions:
        given = {"checkpoint": "1", "target_clip": "clips.jsonl", "output": "out.jsonl"}
    opts = options_to_dict(load_run_options(cls, tmp_path, given))
    own = {"fp16", "pin_mem", "n_workers", "output_dir", "checkpoint"}
    shared = opts.keys() & theirs.keys() - own
    assert len(shared) > 5
    assert {key: opts[key] for key in shared} == {key: theirs[key] for key in shared}
    if "query_txt_db" in opts:
        assert opts["query_txt_db"] == theirs["val_query_txt_db"]
    (line,) = [record.getMessage() for record in caplog.records]
    assert "ignored" in line and "rank" in line


@pytest.mark.parametrize("cls", TRAINING)
def test_keys_of_the_original_are_ignored_and_a_typo_is_not(cls, tmp_path, caplog):
    required = {"train_db": "a", "val_db": "b", "val_ref": "c", "sub_txt_db": "s", "vfeat_db": "v"}
    required |= {"train_query_txt_db": "q", "val_query_txt_db": "q", "output_dir": "run"}
    required |= {"targets": [CORPUS]}
    foreign = {"rank": 3, "n_gpu": 4, "local_rank": 1, "config": "c.json", "test_db": None}
    config = json_file(tmp_path / "c.json", **required, **foreign)
    plain = json_file(tmp_path / "plain.json", **required)
    assert parse_options(cls, ["--config", config]) == parse_options(cls, ["--config", plain])
    line = next(r.getMessage() for r in caplog.records if config in r.getMessage())
    assert all(key in line for key in foreign)
    config = json_file(tmp_path / "c.json", **required, rnak=3)
    with pytest.raises(UserError, match="unknown option 'rnak'"):
        parse_options(cls, ["--config", config])


def test_batch_sizes_under_several_names(tmp_path, caplog):
    both = {"vcmr_eval_batch_size": 8, "vcmr_eval_q_batch_size": 9}
    assert vcmr("--config", json_file(tmp_path / "c.json", **both)).vcmr_eval_q_batch_size == 9
    assert "vcmr_eval_q_batch_size 9 is taken, not vcmr_eval_batch_size 8" in caplog.text
    same = {"vr_eval_video_batch_size": 7, "vcmr_eval_video_batch_size": 7}
    caplog.clear()
    opts = vcmr("--config", json_file(tmp_path / "c.json", **same))
    assert opts.vcmr_eval_video_batch_size == 7 and "is taken" not in caplog.text
    opts = vcmr("--config", json_file(tmp_path / "c.json", batch_size=6, seed=1))
    assert (opts.vcmr_eval_q_batch_size, opts.train_batch_size) == (6, 32)
    assert pretrain(tmp_path, batch_size=6).val_batch_size == 6


@pytest.mark.parametrize("spelling", ["hard_negative_start_step", "hard_negtiave_start_step"])
def test_one_value_under_both_spellings_is_no_mistake(tmp_path, spelling):
    both = {"hard_negative_start_step": [5], "hard_negtiave_start_step": [5]}
    assert vcmr("--config", json_file(tmp_path / "c.json", **both)).hard_negtiave_start_step == [5]
    assert vcmr(f"--{spelling}", "6").hard_negtiave_start_step == [6]


def test_defaults_that_were_others_are_listed_once(tmp_path, caplog):
    config = json_file(tmp_path / "c.json", seed=42, learning_rate=3e-5)
    opts = vcmr("--config", config, "--weight_decay", "0")
    (line,) = [r.getMessage() for r in caplog.records]
    assert line == (
        f"{config} leaves out options whose default is not the original's (in brackets): "
        "optim adamw (adam), gradient_accumulation_steps 2 (16), grad_norm 1.0 (0.25), "
        "warmup_steps 500 (4000), lw_neg_q 8.0 (0.0), lw_neg_ctx 8.0 (0.0), lw_st_ed 0.01 (1.0), "
        "drop_svmr_prob 0.8 (0.0), train_span_start_step 0 (-1), "
        "hard_negtiave_start_step 2000 (10000)"
    )
    assert (opts.optim, opts.warmup_steps) == ("adamw", 500)  # ours are taken
    caplog.clear()
    words = ["--train_db", "a", "--val_db", "b", "--val_ref", "c", "--sub_txt_db", "s"]
    words += ["--vfeat_db", "v", "--output_dir", "run", "--config", config]
    parse_options(TvcOptions, words)
    (line,) = [r.getMessage() for r in caplog.records]
    assert "grad_norm 1.0 (0.25)" in line and "lw_neg_q" not in line
    caplog.clear()
    vcmr()
    assert caplog.text == ""


def test_options_of_the_original_without_effect(caplog):
    words = ["--drop_svmr_prob", "0.8", "--lw_st_ed", "0.01", "--train_span_start_step", "-1"]
    words += ["--full_eval_tasks", "VCMR", "VR", "--eval_with_query_type", "--nms_thd", "-1"]
    plain = [*VCMR, "--task", "msrvtt_video_sub"]
    assert parse_options(VrOptions, [*plain, *words]) == parse_options(VrOptions, plain)
    assert "no effect in this script: --lw_st_ed, --drop_svmr_prob" in caplog.text
    words = ["--train_db", "a", "--val_db", "b", "--val_ref", "c", "--sub_txt_db", "s"]
    words += ["--vfeat_db", "v", "--output_dir", "run"]
    caplog.clear()
    given = parse_options(TvcOptions, [*words, "--test_db", "/txt/tvc_test.db"])
    assert given == parse_options(TvcOptions, words)
    assert "no effect in this script: --test_db" in caplog.text
    with pytest.raises(UserError, match="unknown argument --test_db"):
        vcmr("--test_db", "x")


def test_evaluation_is_always_shared_out_over_the_ranks(tmp_path, caplog):
    on = options_to_dict(vcmr("--distributed_eval"))
    assert caplog.text == "" and on["distributed_eval"]
    config = json_file(tmp_path / "c.json", distributed_eval=False)
    for words in (["--no_distributed_eval"], ["--config", config]):
        caplog.clear()
        assert changed_options(on, vcmr(*words)) == []
        assert caplog.text.count("no effect in this script: --no_distributed_eval") == 1


def test_only_rank_0_speaks_before_logging_is_set_up(tmp_path):
    """Every rank reads the options."""
    config = json_file(tmp_path / "c.json", rank=0, n_gpu=8)
    code = "import sys; from config.config import *; parse_options(VcmrOptions, sys.argv[1:])"
    said = [
        subprocess.run(
            [sys.executable, "-c", code, *VCMR, "--config", config],
            cwd=REPOSITORY,
            env=os.environ | {"RANK": rank},
            capture_output=True,
            text=True,
            check=True,
        ).stderr
        for rank in ("0", "1")
    ]
    assert said[0].count("no effect in this script: rank, n_gpu") == 1
    assert said[1] == ""


def test_a_typed_number_format_beats_that_of_a_file(tmp_path):
    config = json_file(tmp_path / "c.json", fp16=True)
    opts = vcmr("--config", config, "--bf16")
    assert (opts.fp16, opts.bf16) == (False, True)
    config = json_file(tmp_path / "c.json", bf16=True)
    opts = vcmr("--config", config, "--fp16")
    assert (opts.fp16, opts.bf16) == (True, False)


# --- help ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [*TRAINING, *EVALUATION, TvcInferenceOptions])
def test_help_shows_every_option(cls, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_options(cls, ["--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"--{declared.name}" in shown for declared in fields(cls))


def test_help_tells_group_type_range_and_default(capsys):
    with pytest.raises(SystemExit):
        parse_options(VcmrOptions, ["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "Ranking losses: --lw_neg_q X" in shown
    assert "margin of the hinge form [a number; 0 or more; default: 0.1]" in shown
    assert "folder of the run (made, or resumed) [a text; required]" in shown


# --- pre-training corpora -----------------------------------------------------------------------


def test_corpora_resolve_relative_paths(tmp_path):
    (found,) = pretrain(tmp_path, "--txt_db", "/txt", "--img_db", "/video").corpora()
    assert (found.sub_txt_db, found.vfeat_db) == ("/txt/tv_subtitles.db", "/video/tv")
    assert found.splits[0].train_idx == "/txt/splits/train.json"
    assert found.splits[0].val_idx == "/else/val.json"
    assert found.splits[0].ratio == [2.0, 1.0]


def test_a_corpus_in_shards(tmp_path):
    target = corpus(vfeat_shards=["a", "b"])
    del target["vfeat_db"]
    target["splits"] = [{**CORPUS["splits"][0], "train_idx": ["a.json", "b.json"]}]
    (found,) = pretrain(tmp_path, "--txt_db", "t", "--img_db", "v", targets=[target]).corpora()
    assert (found.vfeat_db, found.vfeat_shards) == (None, ["v/a", "v/b"])
    assert found.splits[0].train_idx == ["t/a.json", "t/b.json"]


def test_shards_inside_a_folder_and_lists_of_any_number(tmp_path):
    split = {**CORPUS["splits"][0], "train_idx": "all.json", "val_idx": ["a.json", "b.json"]}
    target = corpus(vfeat_db="ht", vfeat_shards=["a", "b", "/c"], splits=[split])
    (found,) = pretrain(tmp_path, "--txt_db", "t", "--img_db", "v", targets=[target]).corpora()
    assert (found.vfeat_db, found.vfeat_shards) == (None, ["v/ht/a", "v/ht/b", "/c"])
    assert (found.splits[0].train_idx, found.splits[0].val_idx) == (
        "t/all.json",
        ["t/a.json", "t/b.json"],
    )


def test_tasks_weigh_the_same_unless_told(tmp_path):
    split = {key: value for key, value in CORPUS["splits"][0].items() if key != "ratio"}
    (found,) = pretrain(tmp_path, targets=[corpus(splits=[split])]).corpora()
    assert found.splits[0].ratio == [1.0, 1.0]


def test_the_interval_of_corpora_that_do_not_say(tmp_path):
    targets = [CORPUS, corpus(name="ht", vfeat_interval=3)]
    opts = pretrain(tmp_path, "--vfeat_interval", "2", targets=targets)
    assert [target.vfeat_interval for target in opts.targets] == [2.0, 3.0]
    assert pretrain(tmp_path).corpora()[0].vfeat_interval == 1.5
    saved = options_to_dict(opts)
    assert changed_options(saved, pretrain(tmp_path, targets=targets))[0].startswith("targets: ")


def test_corpora_weigh_the_same_unless_told(tmp_path):
    targets = [CORPUS, corpus(name="ht100m")]
    assert pretrain(tmp_path, targets=targets).targets_ratio == [1.0, 1.0]
    given = pretrain(tmp_path, "--targets_ratio", "1", "4", targets=targets)
    assert given.targets_ratio == [1.0, 4.0]


def test_objectives_replace_the_tasks_of_every_split(tmp_path):
    (corpus,) = pretrain(tmp_path, "--objectives", "mlm", "vsm").corpora()
    assert [(split.tasks, split.ratio) for split in corpus.splits] == [(["mlm", "vsm"], [1, 1])]
    (as_listed,) = pretrain(tmp_path).corpora()
    assert as_listed.splits[0].tasks == CORPUS["splits"][0]["tasks"]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (corpus(vfeat_dp="x"), "targets: [0]: unknown key 'vfeat_dp'; did you mean vfeat_db?"),
        (corpus(vfeat_db=None), "needs vfeat_db, vfeat_shards or both"),
        (corpus(vfeat_interval=0), "a vfeat_interval greater than 0"),
        (corpus(splits=[]), "needs one split or more"),
        ({"name": "tv"}, "needs sub_txt_db, splits"),
        (
            corpus(splits=[{**CORPUS["splits"][0], "tasks": ["mlm", 1]}]),
            "splits: [0]: tasks: [1]: expected a text, got 1",
        ),
        (corpus(splits=[{**CORPUS["splits"][0], "ratio": [1]}]), "one weight for each of tasks"),
    ],
)
def test_mistakes_in_a_corpus(tmp_path, target, message):
    with pytest.raises(UserError) as caught:
        pretrain(tmp_path, targets=[target])
    assert message in str(caught.value)


def test_corpora_from_the_command_line(tmp_path):
    opts = pretrain(tmp_path, "--targets", json.dumps([corpus(name="other")]))
    assert opts.targets[0].name == "other"


def test_weights_of_corpora_must_match(tmp_path):
    with pytest.raises(UserError, match=r"targets_ratio = 1\.0 2\.0 must be as long as"):
        pretrain(tmp_path, "--targets_ratio", "1", "2")


# --- saved runs ---------------------------------------------------------------------------------


def saved_run(folder: Path, opts: object) -> Path:
    write_json(folder / "log" / "hps.json", options_to_dict(opts))
    return folder


def test_saved_options_come_back(tmp_path):
    opts = replace(vcmr("--fp16", "--seed", "5"), output_dir=str(tmp_path))
    assert load_run_options(VcmrOptions, saved_run(tmp_path, opts)) == opts
    opts = replace(pretrain(tmp_path), output_dir=str(tmp_path))
    assert load_run_options(PretrainOptions, saved_run(tmp_path, opts)) == opts


def test_evaluation_follows_the_run_but_not_in_how_to_compute(tmp_path):
    words = ["--fp16", "--pin_mem", "--n_workers", "7", "--checkpoint", "init.pt"]
    words += ["--max_clip_len", "50", "--nms_thd", "0.5", "--compressed_db"]
    run = str(saved_run(tmp_path, vcmr(*words)))
    words = ["--output_dir", run, "--checkpoint", "4800", "--split", "val", "--vfeat_db", "mine"]
    opts = parse_options(VcmrEvalOptions, [*words, "--batch_size", "9", "--bf16"])
    assert (opts.max_clip_len, opts.nms_thd, opts.compressed_db) == (50, 0.5, True)
    assert (opts.sub_txt_db, opts.vfeat_db, opts.query_txt_db) == ("sub.db", "mine", "val.db")
    assert (opts.checkpoint, opts.output_dir) == ("4800", run)
    assert (opts.fp16, opts.bf16, opts.pin_mem, opts.n_workers) == (False, True, False, 4)
    assert opts.vcmr_eval_q_batch_size == 9


def test_config_file_of_an_evaluation_beats_the_run(tmp_path):
    run = str(saved_run(tmp_path, vcmr("--max_clip_len", "50", "--nms_thd", "0.5")))
    config = json_file(tmp_path / "c.json", nms_thd=0.7, split="val", checkpoint="1")
    opts = parse_options(VcmrEvalOptions, ["--config", config, "--output_dir", run])
    assert (opts.nms_thd, opts.max_clip_len) == (0.7, 50)


@pytest.mark.parametrize(("split", "query_db"), [("train", "train.db"), ("test_public", "test.db")])
def test_queries_that_are_not_given_are_those_of_the_split(tmp_path, split, query_db):
    run = str(saved_run(tmp_path, vcmr("--test_query_txt_db", "test.db")))
    words = ["--output_dir", run, "--checkpoint", "1", "--split", split]
    assert parse_options(VcmrEvalOptions, words).query_txt_db == query_db
    given = parse_options(VcmrEvalOptions, [*words, "--query_txt_db", "given.db"])
    assert given.query_txt_db == "given.db"


def test_without_a_split_it_is_val(tmp_path):
    run = str(saved_run(tmp_path, vcmr("--test_query_txt_db", "test.db")))
    opts = parse_options(VcmrEvalOptions, ["--output_dir", run, "--checkpoint", "1"])
    assert (opts.split, opts.query_txt_db) == ("val", "val.db")


def test_queries_that_the_run_did_not_know_are_asked_for(tmp_path):
    run = str(saved_run(tmp_path, vcmr()))
    with pytest.raises(UserError, match="missing options: --query_txt_db"):
        words = ["--output_dir", run, "--checkpoint", "1", "--split", "test"]
        parse_options(VcmrEvalOptions, words)


def test_a_folder_without_a_run_is_named(tmp_path):
    words = ["--output_dir", str(tmp_path), "--checkpoint", "1", "--split", "val"]
    with pytest.raises(UserError, match=r"hps\.json does not exist; .* --output_dir of a training"):
        parse_options(VcmrEvalOptions, words)
    with pytest.raises(UserError, match="missing options: --output_dir"):
        parse_options(VcmrEvalOptions, words[2:])


def test_unknown_keys_and_nulls_of_a_saved_run_do_no_harm(tmp_path, caplog):
    saved = {**options_to_dict(vcmr()), "n_gpu": 8, "rank": 0, "max_pred_l": None}
    write_json(tmp_path / "log" / "hps.json", saved)
    words = ["--output_dir", str(tmp_path), "--checkpoint", "1", "--split", "val"]
    assert parse_options(VcmrEvalOptions, words).max_pred_l == 16
    assert "unknown keys are ignored: n_gpu, rank" in caplog.text


def test_bad_value_in_a_saved_run_is_named(tmp_path):
    write_json(tmp_path / "log" / "hps.json", {"max_clip_len": "long"})
    with pytest.raises(UserError, match=r"hps\.json: option max_clip_len: expected an integer"):
        load_run_options(VcmrEvalOptions, tmp_path)


def test_caption_inference_reads_its_run(tmp_path):
    words = ["--train_db", "a", "--val_db", "b", "--val_ref", "c", "--sub_txt_db", "sub.db"]
    words += ["--vfeat_db", "video", "--output_dir", "run", "--max_gen_step", "12"]
    run = saved_run(tmp_path, parse_options(TvcOptions, words))
    words = ["--model_dir", str(run), "--ckpt_step", "7000", "--target_clip", "clips.jsonl"]
    words += ["--output", "out.jsonl"]
    opts = parse_options(TvcInferenceOptions, words)
    assert (opts.max_gen_step, opts.sub_ctx_len, opts.val_batch_size) == (12, 1, 8)
    assert (opts.sub_txt_db, opts.checkpoint, opts.fp16) == ("sub.db", "7000", None)
    more = ["--no_fp16", "--batch_size", "3", "--max_gen_step", "5"]
    opts = parse_options(TvcInferenceOptions, [*words, *more])
    assert (opts.fp16, opts.val_batch_size, opts.max_gen_step) == (False, 3, 5)


@pytest.mark.golden
def test_recorded_runs_load(expected, caplog):
    classes = {
        "exp_tvr": VcmrEvalOptions,
        "exp_tvr_raw": VcmrEvalOptions,
        "exp_tvqa": VideoQaEvalOptions,
        "exp_violin": ViolinEvalOptions,
        "exp_msrvtt_video_sub": VrEvalOptions,
        "exp_msrvtt_video_only": VrEvalOptions,
    }
    given = {"checkpoint": "1", "split": "val", "query_txt_db": "queries.db"}
    for name, cls in classes.items():
        saved = json.loads((expected / name / "log" / "hps.json").read_text())
        opts = options_to_dict(load_run_options(cls, expected / name, given))
        shared = opts.keys() & saved.keys() - {"fp16", "bf16", "pin_mem", "n_workers"}
        assert len(shared) > 5
        assert {key: opts[key] for key in shared} == {key: saved[key] for key in shared}
    given = {"checkpoint": "1", "target_clip": "clips.jsonl", "output": "out.jsonl"}
    assert load_run_options(TvcInferenceOptions, expected / "exp_tvc", given).sub_ctx_len == 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# --- resuming -----------------------------------------------------------------------------------


def test_changed_options_are_listed():
    old = options_to_dict(vcmr("--learning_rate", "2e-4", "--hard_pool_size", "8"))
    assert changed_options(old, vcmr()) == [
        "learning_rate: 0.0002 → 0.0001",
        "hard_pool_size: 8 → 20",
    ]


def test_options_without_effect_on_the_result_may_change():
    old = options_to_dict(vcmr())
    words = ["--n_workers", "1", "--pin_mem", "--log_steps", "3", "--restore_steps", "7"]
    words += ["--save_steps", "9", "--allow_changed_options", "--output_dir", "moved"]
    assert changed_options(old, vcmr(*words)) == []


def test_an_option_that_the_saved_run_did_not_have_had_its_default(tmp_path):
    old = options_to_dict(vcmr())
    del old["sampled_by_q"], old["betas"]
    assert changed_options(old, vcmr()) == []
    assert changed_options(old, vcmr("--no_sampled_by_q")) == ["sampled_by_q: True → False"]


def test_saved_corpora_compare_equal(tmp_path):
    opts = pretrain(tmp_path)
    assert changed_options(json.loads(json.dumps(options_to_dict(opts))), opts) == []
