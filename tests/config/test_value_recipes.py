"""VALUE's recipes hold the published numbers: those that ran, not what a misspelt key meant."""

import json
from typing import Any

import pytest

from config.config import ValueOptions, options_to_dict, parse_options
from config.groups import Channel
from config.model_config import ModelConfig
from config.value import RETRIEVAL, TASKS, is_value
from model.checkpoint import without_values
from model.multitask import HeroForMultiTask
from tests.support import REPOSITORY

FOLDER = REPOSITORY / "config" / "value"
FT_ONLY = "FT_only_configs/"

EVERY = {
    "dropout": 0.1,
    "weight_decay": 0.01,
    "grad_norm": 1.0,
    "seed": 77,
    "fp16": True,
    "n_workers": 4,
    "pin_mem": True,
    "optim": "adamw",
    "betas": [0.9, 0.98],
    "vfeat_version": "resnet_slowfast",
    "vfeat_interval": 1.5,
    "compressed_db": False,
    "max_clip_len": 100,
}
PRETRAINED = {
    "checkpoint": "/pretrain/hero-tv-ht100.pt",
    "load_partial_pretrained": False,
    "skip_layer_loading": False,
}
ROBERTA = {
    "checkpoint": "/pretrain/pretrain-tv-init.bin",
    "load_partial_pretrained": True,
    "skip_layer_loading": True,
}
FINETUNE = {"model_config": "config/model_config/hero_finetune.json"}
VIDEO_CAP = {"model_config": "config/model_config/hero_videoCap.json"}
RANKING = {
    "ranking_loss_type": "hinge",
    "margin": 0.1,
    "use_all_neg": True,
    "hard_neg_weights": [10.0],
    "distributed_eval": True,
    "vcmr_eval_video_batch_size": 50,
    "vcmr_eval_q_batch_size": 80,
}
TVR = RANKING | {
    "val_batch_size": 20,
    "lw_neg_q": 8.0,
    "lw_neg_ctx": 8.0,
    "hard_pool_size": [20],
    "hard_negtiave_start_step": [2000],
    "drop_svmr_prob": 0.8,
    "lw_st_ed": 0.01,
    "train_span_start_step": 0,
    "q2c_alpha": 20.0,
    "max_vcmr_video": 100,
    "max_before_nms": 200,
    "max_after_nms": 100,
    "full_eval_tasks": ["VCMR", "SVMR", "VR"],
    "min_pred_l": 2,
    "max_pred_l": 16,
    "nms_thd": -1.0,
    "eval_with_query_type": True,
}
HOW2R = TVR | {
    "drop_svmr_prob": 0.9,
    "min_pred_l": 3,
    "max_pred_l": 20,
    "hard_negtiave_start_step": [-1],  # the key that meant 1000 was misspelt
}
VR = RANKING | {
    "val_batch_size": 20,
    "lw_neg_q": 10.0,
    "lw_neg_ctx": 10.0,
    "hard_pool_size": [80],
    "hard_negtiave_start_step": [2000],
    "max_vr_video": 100,
}
QA = {"lw_st_ed": 0.4, "val_batch_size": 10}
CAPTION = {"lsr": 0.1, "max_gen_step": 30}

COLUMNS = "gpus train_batch_size gradient_accumulation_steps learning_rate lr_mul num_train_steps"
COLUMNS += " warmup_steps valid_steps max_txt_len sub_ctx_len"
# fmt: off
SINGLE = {
    "tvr": (8, 32, 2, 1e-4, 1, 5000, 500, 200, 60, 0, TVR),
    "how2r": (8, 32, 2, 1e-4, 1, 3000, 300, 200, 60, 0, HOW2R),
    "yc2r": (4, 48, 2, 7e-5, 1, 4000, 400, 200, 60, 1, VR),
    "vatex_en_r": (8, 64, 2, 7e-5, 1, 4000, 400, 200, 60, 1, VR),
    "tvqa": (8, 4, 2, 5e-5, 10, 10_000, 1000, 200, 120, 0, QA),
    "how2qa": (8, 4, 2, 5e-5, 10, 2000, 200, 200, 120, 0, QA),
    "vlep": (8, 4, 2, 5e-5, 10, 1000, 100, 100, 120, 0,
             {"val_batch_size": 10, "save_steps": 200, "vlep_lw_st_ed": 0.0}),
    "violin": (8, 4, 2, 3e-5, 8, 6000, 600, 200, 120, 2, {"val_batch_size": 10}),
    "tvc": (8, 4, 1, 1e-4, 10, 7000, 700, 500, 60, 1, CAPTION | {"val_batch_size": 8}),
    "yc2c": (8, 16, 1, 1e-4, 10, 7000, 700, 500, 60, 1, CAPTION | {"val_batch_size": 16}),
    "vatex_en_c": (8, 128, 1, 1e-4, 10, 7000, 700, 500, 60, 1, CAPTION | {"val_batch_size": 128}),
}
# What the runs without pre-training have otherwise, and those of one channel.
WITHOUT_PRETRAINING: dict[str, dict[str, Any]] = {
    "tvr": {"num_train_steps": 10_000, "warmup_steps": 1000, "valid_steps": 400,
            "save_steps": 400, "hard_negtiave_start_step": [4000]},
    "how2r": {"num_train_steps": 6000, "warmup_steps": 600},
    "vlep": {"num_train_steps": 2000, "warmup_steps": 200},
}
OF_CHANNEL: dict[str, dict[str, Any]] = {
    "how2r_video_only": {"hard_negtiave_start_step": [2000]},  # the only one spelt right
    "how2r_sub_only": {"num_train_steps": 3000, "warmup_steps": 300},
    "yc2r_video_only": {"train_batch_size": 64},
    "yc2r_sub_only": {"train_batch_size": 40},
}

MIX_BATCHES = {"tvr": 32, "how2r": 32, "vatex_en_r": 64, "yc2r": 48, "tvqa": 4, "how2qa": 4,
               "vlep": 4, "violin": 4, "tvc": 4, "vatex_en_c": 128, "yc2c": 16}
MIX_VAL_BATCHES = {"tvr": 20, "how2r": 32, "vatex_en_r": 32, "yc2r": 32, "tvqa": 10, "how2qa": 10,
                   "vlep": 10, "violin": 10, "tvc": 8, "vatex_en_c": 128, "yc2c": 16}
ALL_TASKS = CAPTION | {"qa_lw_st_ed": 0.4, "vlep_lw_st_ed": 0.0}
MIX_COLUMNS = "gradient_accumulation_steps learning_rate num_train_steps warmup_steps valid_steps"
MIX_COLUMNS += " hard_negtiave_start_step max_txt_len sub_ctx_len lr_mul"
MIXES = {
    "all": ({"tvr": 5, "tvc": 5, "tvqa": 5, "violin": 3, "vlep": 1, "how2r": 2, "vatex_en_r": 6,
             "yc2r": 2, "vatex_en_c": 2, "yc2c": 2, "how2qa": 1},
            2, 1e-4, 50_000, 5000, 500, [20_000], 60, 0, 1, ALL_TASKS),
    "tv_domain": ({"tvr": 5, "tvc": 5, "tvqa": 5, "violin": 3, "vlep": 1},
                  2, 1e-4, 20_000, 2000, 400, [8000], 60, 0, 1, ALL_TASKS),
    "youtube_domain": ({"how2r": 1, "vatex_en_r": 2, "yc2r": 1, "vatex_en_c": 2, "yc2c": 2,
                        "how2qa": 1},
                       2, 1e-4, 10_000, 1000, 400, [4000], 60, 0, 1, ALL_TASKS),
    "retrieval": ({"tvr": 2, "how2r": 1, "vatex_en_r": 3, "yc2r": 1},
                  2, 1e-4, 10_000, 1000, 400, [4000], 60, 0, 1, {}),
    "qa": ({"tvqa": 5, "how2qa": 1, "violin": 3, "vlep": 1},
           2, 5e-5, 20_000, 2000, 200, None, 120, 0, 10,
           {"lw_st_ed": 0.4, "vlep_lw_st_ed": 0.0}),
    "caption": ({"tvc": 2, "vatex_en_c": 2, "yc2c": 1},
                1, 1e-4, 30_000, 3000, 500, None, 60, 1, 10, CAPTION),
}
LONGER = {"num_train_steps": 20_000, "warmup_steps": 2000, "hard_negtiave_start_step": [8000]}
MIXES_WITHOUT_PRETRAINING: dict[str, dict[str, Any]] = {
    "tv_domain": {"num_train_steps": 30_000, "warmup_steps": 3000},
    "youtube_domain": LONGER,
    "retrieval": LONGER,
}
# fmt: on
CORPORA = {
    **dict.fromkeys(("tvr", "tvqa", "tvc"), "tv"),
    **dict.fromkeys(("how2r", "how2qa"), "how2"),
    **dict.fromkeys(("yc2r", "yc2c"), "yc2"),
    **dict.fromkeys(("vatex_en_r", "vatex_en_c"), "vatex"),
    "vlep": "vlep",
    "violin": "violin",
}
SELECTED = {"vlep": "dev", "vatex_en_c": "test_public"}  # elsewhere val
LEARNT_FROM = {
    "yc2c": ["yc2r_train"],
    "vatex_en_c": ["vatex_en_r_train", "vatex_en_r_val"],
    "tvc": ["tvc_train"],
}
FILES = {"how2r_val": "how2r_val_1k"}


def entry(data_set: str, channel: str, training: bool, **others: Any) -> dict[str, Any]:
    """An entry of the lists."""
    split = "train" if training else SELECTED.get(data_set, "val")
    corpus = CORPORA[data_set]
    reads_text = channel != Channel.VIDEO_ONLY
    # Without text they tell the indices of the videos that retrieval lists.
    named = reads_text or TASKS[data_set].kind in RETRIEVAL
    subtitles = f"/txt/{corpus}_subtitles.db" if named else None
    given = {
        "task": TASKS[data_set].task,
        "name": f"{data_set}_{channel}_{split}",
        "sub_txt_db": subtitles,
        "vfeat_db": f"/video/{corpus}",
    }
    file = f"{data_set}_{split}"
    if data_set not in LEARNT_FROM:
        given["query_txt_db"] = f"/txt/{FILES.get(file, file)}.db"
    elif training:
        given["cap_txt_db"] = [f"/txt/{name}.db" for name in LEARNT_FROM[data_set]]
    else:
        given["gt_anno"] = f"/txt/{file}_release.jsonl"
    return given | others


def single(data_set: str, ft_only: bool, channel: str) -> tuple[str, dict[str, Any]]:
    """File name and values of a recipe of one data set."""
    gpus, *numbers, others = SINGLE[data_set]
    values = dict(zip(COLUMNS.split()[1:], numbers, strict=True))
    values["save_steps"] = values["valid_steps"]
    name = data_set if channel == Channel.VIDEO_SUB else f"{data_set}_{channel}"
    start = "FT_only" if ft_only else "PT_FT"
    lists = {
        "train_datasets": [entry(data_set, channel, True)],
        "val_datasets": [entry(data_set, channel, False)],
        "output_dir": f"/storage/ST_{start}/{name}_default",
    }
    model = VIDEO_CAP if data_set in LEARNT_FROM else FINETUNE
    values = EVERY | lists | model | (ROBERTA if ft_only else PRETRAINED) | values | others
    if ft_only:
        values |= WITHOUT_PRETRAINING.get(data_set, {}) | OF_CHANNEL.get(name, {})
    return f"{FT_ONLY * ft_only}train-{name}-{gpus}gpu", values


def mix(name: str, ft_only: bool) -> tuple[str, dict[str, Any]]:
    """File name and values of a recipe of several data sets."""
    ratios, *numbers, others = MIXES[name]
    values = dict(zip(MIX_COLUMNS.split(), numbers, strict=True))
    values["save_steps"] = values["valid_steps"]
    retrieval = values["hard_negtiave_start_step"] is not None
    if retrieval:
        ranking = {key: value for key, value in TVR.items() if key not in values}
        values |= ranking | {"max_vr_video": 100}
        values.pop("val_batch_size")
    else:
        values.pop("hard_negtiave_start_step")
    sizes = MIX_VAL_BATCHES | (dict.fromkeys(ratios, 20) if name == "retrieval" else {})
    sets = [(each, Channel.VIDEO_SUB) for each in ratios]
    start = "FT_only" if ft_only else "PT_FT"
    lists = {
        "train_datasets": [
            entry(*each, True, batch_size=MIX_BATCHES[each[0]], ratio=ratios[each[0]])
            for each in sets
        ],
        "val_datasets": [entry(*each, False, batch_size=sizes[each[0]]) for each in sets],
        "output_dir": f"/storage/MT_{start}/{name}_default",
    }
    model = VIDEO_CAP if name == "caption" else FINETUNE
    values = EVERY | lists | model | (ROBERTA if ft_only else PRETRAINED) | values | others
    if ft_only:
        values |= MIXES_WITHOUT_PRETRAINING.get(name, {})
    return f"{FT_ONLY * ft_only}train-{name}-multitask-8gpu", values


PUBLISHED = dict(
    [single(name, False, Channel.VIDEO_SUB) for name in SINGLE]
    + [single(name, True, channel) for name in SINGLE for channel in Channel]
    + [mix(name, ft_only) for name in MIXES for ft_only in (False, True)]
)
RECIPES = sorted(str(path.relative_to(FOLDER))[:-5] for path in FOLDER.rglob("*.json"))
DEBUG = [name for name in RECIPES if name.startswith("debug-")]


def recipe(name: str) -> ValueOptions:
    return parse_options(ValueOptions, ["--config", str(FOLDER / f"{name}.json")])


def test_every_recipe_is_checked_here():
    assert set(RECIPES) == set(PUBLISHED) | set(DEBUG)
    assert len(PUBLISHED) == 11 + 3 * 11 + 2 * 6


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_runs_with_the_published_values_and_says_them_all(name, caplog):
    expected = dict(PUBLISHED[name])
    written = json.loads((FOLDER / f"{name}.json").read_text())
    assert is_value(written) and written["no_fp16"] is False
    values = options_to_dict(recipe(name))
    assert caplog.text == ""
    said = expected.keys() - {"fp16"}
    assert {key for key in said if expected[key] not in (None, False)} <= written.keys()
    for part in ("train_datasets", "val_datasets"):
        for wanted, found in zip(expected.pop(part), values[part], strict=True):
            assert {key: found[key] for key in wanted} == wanted
    assert {key: values[key] for key in expected} == expected
    ModelConfig.from_json(REPOSITORY / values["model_config"])


@pytest.mark.parametrize("name", RECIPES)
def test_the_model_has_the_blocks_that_the_data_sets_need(name):
    options = recipe(name)
    config = ModelConfig.from_json(REPOSITORY / options.model_config)
    with without_values():
        model = HeroForMultiTask(config, kinds={each.kind for each in options.train_datasets})
    assert {each.kind for each in options.train_datasets} <= model.parts.keys()


def test_no_two_recipes_share_a_run_folder():
    folders = [recipe(name).output_dir for name in RECIPES]
    assert len(set(folders)) == len(folders)


def test_model_files_are_those_of_hero_with_a_decoder():
    def read(path: str) -> dict:
        return json.loads((REPOSITORY / "config" / path).read_text())

    captions = read("hero_tvc.json")
    assert read("model_config/hero_videoCap.json") == captions
    with_decoder = read("hero_finetune.json") | {"d_config": captions["d_config"]}
    assert read("model_config/hero_finetune.json") == with_decoder


@pytest.mark.parametrize("name", DEBUG)
def test_debug_recipes_are_small_and_stay_in_the_demo_folder(name):
    options = recipe(name)
    assert options.num_train_steps <= 1500
    assert not (options.fp16 or options.bf16)
    assert options.checkpoint is None and options.n_workers <= 1
    assert ModelConfig.from_json(REPOSITORY / options.model_config).f_config.hidden_size == 128
    paths = [options.output_dir]
    for each in options.train_datasets + options.val_datasets:
        given = (each.sub_txt_db, each.vfeat_db, each.query_txt_db, each.gt_anno, *each.cap_txt_db)
        paths += [path for path in given if path is not None]
    assert all(path.startswith("demo/") for path in paths)
