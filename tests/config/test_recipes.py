"""The shipped recipes are complete, and run with the published values."""

import json

import pytest

from config.config import (
    PretrainOptions,
    TvcOptions,
    VcmrOptions,
    VideoQaOptions,
    ViolinOptions,
    VrOptions,
    options_to_dict,
    parse_options,
)
from config.model_config import ModelConfig
from config.options import Options
from tests.support import REPOSITORY, published_options

CONFIG = REPOSITORY / "config"

# A recipe's file name says its task, which has one script.
SCRIPTS = {
    "tvr": VcmrOptions,
    "how2r": VcmrOptions,
    "didemo_video_sub": VcmrOptions,
    "didemo_video_only": VcmrOptions,
    "msrvtt_video_sub": VrOptions,
    "msrvtt_video_only": VrOptions,
    "tvqa": VideoQaOptions,
    "how2qa": VideoQaOptions,
    "violin": ViolinOptions,
    "tvc": TvcOptions,
    "tv": PretrainOptions,
    "pretrain": PretrainOptions,
    "pretrain_ht": PretrainOptions,
    "search": VcmrOptions,
}
OF_TASK = {"search": "tvr"}  # a recipe that is named otherwise than its task

FINE_TUNING = {
    "checkpoint": "/pretrain/hero-tv-ht100.pt",
    "model_config": "config/hero_finetune.json",
    "load_partial_pretrained": False,
    "skip_layer_loading": False,
    "vfeat_interval": 1.5,
}
RANKING = published_options.RANKING | {"hard_negtiave_start_step": [2000]}
SPANS = {"drop_svmr_prob": 0.8, "lw_st_ed": 0.01, "train_span_start_step": 0}
SEARCH = published_options.SEARCH | {"val_batch_size": 20}
MOMENTS = {
    "q2c_alpha": 20.0,
    "max_vcmr_video": 100,
    "max_before_nms": 200,
    "max_after_nms": 100,
    "full_eval_tasks": ["VCMR", "SVMR", "VR"],
}
WEIGHTS_8 = {"lw_neg_q": 8.0, "lw_neg_ctx": 8.0, "hard_pool_size": [20]}
WEIGHTS_10 = {"lw_neg_q": 10.0, "lw_neg_ctx": 10.0, "hard_pool_size": [80]}
BLOCK_A = RANKING | SPANS | SEARCH | MOMENTS
TVR = BLOCK_A | WEIGHTS_8 | {"min_pred_l": 2, "max_pred_l": 16, "nms_thd": 0.5}
DIDEMO = BLOCK_A | WEIGHTS_10 | {"nms_thd": -1.0, "eval_with_query_type": False}
MSRVTT = RANKING | SEARCH | WEIGHTS_10 | {"vfeat_interval": 2.0, "max_vr_video": 100}
QA = {"lw_st_ed": 0.4, "val_batch_size": 10}
TYPES, NO_TYPES = {"eval_with_query_type": True}, {"eval_with_query_type": False}
TVC = {"lsr": 0.1, "max_gen_step": 30, "max_cap_per_vid": -1, "val_batch_size": 8}
PRETRAINING = {
    **RANKING,
    **SPANS,
    **WEIGHTS_8,
    "hard_negtiave_start_step": [20_000],
    "val_batch_size": 32,
    "mask_prob": 0.15,
    "targets_ratio": [1.0],
    "checkpoint": "/pretrain/pretrain-tv-init.bin",
    "load_partial_pretrained": True,
    "skip_layer_loading": True,
    "model_config": "config/hero_pretrain.json",
    "output_dir": "/storage/default_pretrain_tv",
}

COLUMNS = "train_batch_size gradient_accumulation_steps learning_rate lr_mul num_train_steps"
COLUMNS += " warmup_steps valid_steps max_clip_len max_txt_len sub_ctx_len"
# fmt: off
PUBLISHED = {
    "train-tvr-8gpu": (32, 2, 1e-4, 1, 5000, 500, 200, 100, 60, 0, TVR | TYPES),
    "train-tvr-1gpu": (32, 2, 1e-4, 1, 5000, 500, 200, 100, 60, 0, TVR | TYPES
                       | {"output_dir": "/storage/tvr_1gpu"}),
    "train-how2r-8gpu": (32, 2, 1e-4, 1, 5000, 500, 200, 100, 60, 0, TVR | NO_TYPES
                         | {"vfeat_interval": 2.0}),
    "train-didemo_video_sub-8gpu": (32, 2, 1e-4, 1, 5000, 500, 200, 100, 60, 0, DIDEMO
                                    | {"min_pred_l": 2, "max_pred_l": 16}),
    "train-didemo_video_only-4gpu": (32, 1, 7e-5, 1, 5000, 500, 200, 20, 60, None, DIDEMO
                                     | {"min_pred_l": 3, "max_pred_l": 6}),
    "train-msrvtt_video_sub-4gpu": (96, 2, 7e-5, 1, 4000, 400, 200, 100, 60, 1, MSRVTT),
    "train-msrvtt_video_only-4gpu": (96, 2, 7e-5, 1, 4000, 400, 200, 100, 60, None, MSRVTT),
    "train-tvqa-8gpu": (4, 2, 5e-5, 10, 10_000, 1000, 200, 100, 120, 0, QA),
    "train-how2qa-8gpu": (4, 2, 5e-5, 10, 10_000, 1000, 200, 100, 120, 0, QA
                          | {"vfeat_interval": 2.0}),
    "train-violin-8gpu": (4, 2, 3e-5, 8, 6000, 600, 200, 100, 120, 2,
                          {"compressed_db": True, "val_batch_size": 10}),
    "train-tvc-8gpu": (4, 1, 1e-4, 10, 7000, 700, 500, 100, 60, 1, TVC
                       | {"model_config": "config/hero_tvc.json"}),
    "pretrain-tv-16gpu": (32, 2, 3e-5, 1, 100_000, 10_000, 500, 100, 60, 0, PRETRAINING),
}
# fmt: on
CORPORA = {"tvr": "tv", "tvqa": "tv", "tvc": "tv", "how2r": "how2", "how2qa": "how2"}
WITH_TEST_SPLIT = ("didemo", "msrvtt", "violin")


def databases(task: str) -> dict:
    """Options of the databases in the container; they are called after the data set."""
    data = task.partition("_")[0]
    corpus = CORPORA.get(data, data)
    reads_text = not task.endswith("_video_only")
    shared = {
        "sub_txt_db": f"/txt/{corpus}_subtitles.db" if reads_text else None,
        "vfeat_db": f"/video/{corpus}",
    }
    if task == "tvc":
        captions = {f"{split}_db": f"/txt/tvc_{split}.db" for split in ("train", "val")}
        return shared | captions | {"val_ref": "/txt/tvc_val_release.jsonl"}
    queries = {
        f"{split}_query_txt_db": f"/txt/{data}_{split}.db"
        for split in ("train", "val", "test")
        if split != "test" or data in WITH_TEST_SPLIT
    }
    return {"test_query_txt_db": None} | shared | queries


def published(name: str) -> dict:
    """Every published value of a recipe."""
    *numbers, others = PUBLISHED[name]
    row = dict(zip(COLUMNS.split(), numbers, strict=True))
    if row["sub_ctx_len"] is None:
        del row["sub_ctx_len"]
    values = published_options.EVERY | row | {"save_steps": row["valid_steps"]}
    if not name.startswith("pretrain"):
        task = name.split("-")[1]
        folder = {"task": task, "output_dir": f"/storage/{task}_default"}
        values |= FINE_TUNING | databases(task) | folder
    return values | others


RECIPES = sorted(path.stem for path in CONFIG.glob("*.json") if not path.stem.startswith("hero_"))
DEBUG = [name for name in RECIPES if name.startswith("debug-")]


def recipe(name: str) -> Options:
    cls = SCRIPTS[name.split("-")[1]]
    return parse_options(cls, ["--config", str(CONFIG / f"{name}.json")])


def test_every_recipe_is_checked_here():
    assert set(RECIPES) == set(PUBLISHED) | set(DEBUG)
    assert {name.removeprefix("debug-") for name in DEBUG} == set(SCRIPTS) - {"tv"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_runs_with_the_published_values_and_says_them_all(name):
    expected = published(name)
    values = options_to_dict(recipe(name))
    assert {key: values[key] for key in expected} == expected
    written = json.loads((CONFIG / f"{name}.json").read_text())
    said = {key for key, value in expected.items() if value is not None and value is not False}
    assert said <= written.keys()


def test_the_corpus_of_pretraining():
    (corpus,) = recipe("pretrain-tv-16gpu").corpora()
    assert (corpus.name, corpus.vfeat_interval) == ("tv", 1.5)
    assert (corpus.sub_txt_db, corpus.vfeat_db) == ("/txt/tv_subtitles.db", "/video/tv")
    (split,) = corpus.splits
    assert (split.tasks, split.ratio) == (["mlm", "mfm-nce", "fom", "vsm"], [2, 2, 1, 2])
    assert split.train_idx == "/txt/pretrain_splits/tv_train.json"
    assert split.val_idx == "/txt/pretrain_splits/tv_val.json"


def test_no_two_recipes_share_a_run_folder():
    folders = [recipe(name).output_dir for name in RECIPES]
    assert len(set(folders)) == len(folders)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_use_every_key_and_name_their_task(name, caplog):
    opts = recipe(name)
    assert caplog.text == ""
    if not isinstance(opts, PretrainOptions):
        kind = name.split("-")[1]
        assert opts.task == OF_TASK.get(kind, kind)
    ModelConfig.from_json(REPOSITORY / opts.model_config)


@pytest.mark.parametrize("name", DEBUG)
def test_debug_recipes_are_small_and_stay_in_the_demo_folder(name):
    opts = recipe(name)
    assert opts.num_train_steps <= 500
    assert not (opts.fp16 or opts.bf16) and opts.checkpoint is None and opts.n_workers == 1
    assert ModelConfig.from_json(REPOSITORY / opts.model_config).f_config.hidden_size == 128
    values = options_to_dict(opts)
    paths = [value for key, value in values.items() if key.endswith(("_db", "_dir")) and value]
    assert all(str(path).startswith("demo/") for path in paths if path is not True)
