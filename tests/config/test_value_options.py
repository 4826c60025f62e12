"""VALUE's lists, names and defaults as its files have them."""

import json
from pathlib import Path

import pytest

from config.config import ValueOptions, VcmrOptions, ViolinOptions, parse_options
from config.groups import Channel
from config.parsing import read_config
from config.value import TASKS, is_value
from tests.support import REPOSITORY
from utils.errors import UserError

TVR = {
    "task": "vcmr",
    "name": "tvr_video_sub_train",
    "sub_txt_db": "/txt/tv_subtitles.db",
    "vfeat_db": "/video/tv",
    "query_txt_db": "/txt/tvr_train.db",
}
YC2C = {
    "task": "videoCap",
    "name": "yc2c_video_sub_train",
    "sub_txt_db": "/txt/yc2_subtitles.db",
    "vfeat_db": "/video/yc2",
    "cap_txt_db": ["/txt/yc2r_train.db"],
}
VLEP = {
    "task": "videoQA",
    "name": "vlep_sub_only_dev",
    "sub_txt_db": "/txt/vlep_subtitles.db",
    "vfeat_db": "/video/vlep",
    "query_txt_db": "/txt/vlep_dev.db",
}
VLEP_TRAIN = VLEP | {"name": "vlep_sub_only_train", "query_txt_db": "/txt/vlep_train.db"}


@pytest.fixture
def parse(tmp_path: Path):
    def parse(train: list[dict], val: list[dict] = (), *words: str, **values) -> ValueOptions:
        val = val or [
            each | ({"gt_anno": "/txt/x.jsonl"} if "cap_txt_db" in each else {}) for each in train
        ]
        lists = {"train_datasets": list(train), "val_datasets": list(val)}
        config = tmp_path / "config.json"
        config.write_text(json.dumps(lists | {"output_dir": "/storage/run"} | values))
        return parse_options(ValueOptions, ["--config", str(config), *words])

    return parse


def test_an_entry_tells_data_set_channel_and_split(parse):
    vatex = TVR | {"task": "vr", "name": "vatex_video_sub_val", "query_txt_db": "/txt/v.db"}
    how2r = TVR | {"name": "how2r_video_only_val_1k", "sub_txt_db": None}
    trained = [TVR | {"ratio": 5, "batch_size": 3}, YC2C, VLEP_TRAIN]
    options = parse(trained, [VLEP, vatex, how2r])
    tvr, yc2c, _ = options.train_datasets
    assert (tvr.data_set, tvr.channel, tvr.split) == ("tvr", Channel.VIDEO_SUB, "train")
    assert (tvr.ratio, tvr.batch_size, yc2c.ratio, yc2c.batch_size) == (5, 3, 1, 32)
    assert [(each.data_set, each.channel, each.split) for each in options.val_datasets] == [
        ("vlep", Channel.SUB_ONLY, "dev"),
        ("vatex_en_r", Channel.VIDEO_SUB, "val"),
        ("how2r", Channel.VIDEO_ONLY, "val"),
    ]
    assert {each.batch_size for each in options.val_datasets} == {20}


def test_a_set_has_its_own_databases_and_batch_size(parse):
    options = parse([TVR, YC2C | {"batch_size": 5}], max_clip_len=7, storage=None)
    own = options.of(options.train_datasets[1])
    assert (own.task, own.train_batch_size, own.max_clip_len) == ("yc2c", 5, 7)
    assert (own.sub_txt_db, own.vfeat_db) == ("/txt/yc2_subtitles.db", "/video/yc2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "tvr_train"}, "must be DATASET_CHANNEL_SPLIT"),
        ({"name": "tvs_video_sub_train"}, "must be DATASET_CHANNEL_SPLIT"),
        ({"name": "tvr_video_sub"}, "lacks the split"),
        ({"task": "vr"}, "must be 'vcmr'"),
        ({"sub_txt_db": None}, "needs sub_txt_db"),
        ({"ratio": 0}, "greater than 0"),
        ({"batch_size": 0}, "greater than 0"),
        ({"query_txt_db": None}, "query_txt_db of tvr_video_sub_train"),
        ({"batchsize": 4}, "did you mean batch_size"),
    ],
)
def test_what_is_wrong_with_an_entry_is_said(parse, change, message):
    with pytest.raises(UserError, match=message):
        parse([TVR | change])


def test_an_entry_is_listed_once(parse):
    with pytest.raises(UserError, match="in which tvr_video_sub_train is once"):
        parse([TVR, TVR])


@pytest.mark.parametrize(
    ("given", "words", "fp16"),
    [
        ({}, [], None),
        ({"no_fp16": True}, [], False),
        ({"no_fp16": False}, [], True),
        ({"fp16": True, "no_fp16": False}, [], True),
        ({"no_fp16": False}, ["--no_fp16"], False),
        ({"no_fp16": False}, ["--bf16"], False),
    ],
)
def test_half_precision_is_on_unless_turned_off(parse, given, words, fp16):
    options = parse([TVR], (), *words, **given)
    assert (options.fp16, options.pin_mem) == (fp16, True)


def test_a_switch_and_its_opposite_exclude_each_other(parse):
    with pytest.raises(UserError, match="fp16 and no_fp16 are one option"):
        parse([TVR], fp16=True, no_fp16=True)


@pytest.mark.parametrize("key", ["hard_negtiave_start_step", "hard_negative_start_step"])
def test_both_spellings_of_a_key_are_read(parse, key):
    assert parse([TVR], **{key: [7]}).hard_negtiave_start_step == [7]


def test_batch_sizes_of_evaluation_are_taken(parse):
    options = parse([TVR], vcmr_eval_batch_size=9, vr_eval_batch_size=9)
    assert options.vcmr_eval_q_batch_size == 9


def test_span_weights_are_those_of_what_is_trained(parse):
    def weights(train: list[dict], **values) -> tuple:
        options = parse(train, **values)
        return options.lw_st_ed, options.qa_lw_st_ed, options.vlep_lw_st_ed

    assert weights([TVR, VLEP_TRAIN]) == (0.01, 0.4, 0)
    assert weights([TVR], lw_st_ed=0.2) == (0.2, 0.4, 0)
    assert weights([VLEP_TRAIN]) == (0.4, 0.4, 0)
    assert weights([VLEP_TRAIN], lw_st_ed=0.3) == (0.3, 0.3, 0)
    assert weights([VLEP_TRAIN], lw_st_ed=0.3, qa_lw_st_ed=0.1, vlep_lw_st_ed=1) == (0.3, 0.1, 1)


def test_every_parameter_has_the_plain_rate_where_retrieval_trains(parse, caplog):
    assert parse([YC2C], lr_mul=10).lr_mul == 10
    assert "lr_mul" not in caplog.text
    assert parse([YC2C, TVR], lr_mul=10).lr_mul == 1
    assert "lr_mul 10 has no effect" in caplog.text


def test_a_config_of_one_task_with_a_key_of_value_is_heros(tmp_path, caplog):
    config = tmp_path / "flat.json"
    config.write_text(json.dumps({"task": "violin", "no_fp16": True}))
    assert read_config(ViolinOptions, config) == {"task": "violin", "fp16": False}
    assert "trained by HERO's rules" in caplog.text


def test_a_config_of_the_other_rules_names_the_scripts_that_run_it():
    config = REPOSITORY / "config"
    with pytest.raises(UserError, match=r"train-yc2r-4gpu\.json lists data sets.*train_retrieval"):
        parse_options(VcmrOptions, ["--config", str(config / "value" / "train-yc2r-4gpu.json")])
    with pytest.raises(UserError, match=r"train-tvr-8gpu\.json lists no data sets.*train_vcmr\.py"):
        parse_options(ValueOptions, ["--config", str(config / "train-tvr-8gpu.json")])


def test_value_files_are_told_from_others(tmp_path):
    assert is_value({"train_datasets": []}) and is_value({"no_fp16": True})
    recipes = REPOSITORY.joinpath("config").glob("*.json")
    assert not any(is_value(json.loads(path.read_text())) for path in recipes)


def test_a_negated_key_is_taken_by_other_trainings_too(tvr_options, tmp_path):
    config = tmp_path / "tvr.json"
    config.write_text(json.dumps(tvr_options | {"no_fp16": False}))
    assert parse_options(VcmrOptions, ["--config", str(config)]).fp16 is True


def test_the_table_names_eleven_tasks():
    metrics = [task.metric for task in TASKS.values()]
    assert metrics == ["AveR"] * 4 + ["accuracy"] * 4 + ["CIDEr"] * 3
    assert all(set(task.submitted) <= task.evaluated.keys() for task in TASKS.values())
    assert all(task.selection in task.evaluated for task in TASKS.values())


def test_only_what_is_trained_is_validated(parse):
    with pytest.raises(UserError, match="no data set trains the head of vlep_sub_only_dev"):
        parse([TVR], [VLEP])
    with pytest.raises(UserError, match="full_eval_tasks = VR must be a list with VCMR"):
        parse([TVR], full_eval_tasks=["VR"])
