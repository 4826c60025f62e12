"""The shipped recipes hold the published numbers, each written out here once more by hand."""

from pathlib import Path

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

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "config"

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
}

COMMON = {
    "dropout": 0.1,
    "weight_decay": 0.01,
    "grad_norm": 1.0,
    "seed": 77,
    "fp16": True,
    "bf16": False,
    "n_workers": 4,
    "optim": "adamw",
    "betas": [0.9, 0.98],
    "vfeat_version": "resnet_slowfast",
}

# batch, accumulation, lr, lr_mul, steps, warm-up, validation, clip, text, context, interval
NUMBERS = {
    "train-tvr-8gpu": (32, 2, 1e-4, 1, 5000, 500, 200, 100, 60, 0, 1.5),
    "train-tvr-1gpu": (32, 2, 1e-4, 1, 5000, 500, 200, 100, 60, 0, 1.5),
    "train-how2r-8gpu": (32, 2, 1e-4, 1, 5000, 500, 200, 100, 60, 0, 2),
    "train-didemo_video_sub-8gpu": (32, 2, 1e-4, 1, 5000, 500, 200, 100, 60, 0, 1.5),
    "train-didemo_video_only-4gpu": (32, 1, 7e-5, 1, 5000, 500, 200, 20, 60, None, 1.5),
    "train-msrvtt_video_sub-4gpu": (96, 2, 7e-5, 1, 4000, 400, 200, 100, 60, 1, 2),
    "train-msrvtt_video_only-4gpu": (96, 2, 7e-5, 1, 4000, 400, 200, 100, 60, None, 2),
    "train-tvqa-8gpu": (4, 2, 5e-5, 10, 10000, 1000, 200, 100, 120, 0, 1.5),
    "train-how2qa-8gpu": (4, 2, 5e-5, 10, 10000, 1000, 200, 100, 120, 0, 2),
    "train-violin-8gpu": (4, 2, 3e-5, 8, 6000, 600, 200, 100, 120, 2, 1.5),
    "train-tvc-8gpu": (4, 1, 1e-4, 10, 7000, 700, 500, 100, 60, 1, 1.5),
    "pretrain-tv-16gpu": (32, 2, 3e-5, 1, 100000, 10000, 500, 100, 60, 0, None),
}

RANKING = {
    "ranking_loss_type": "hinge",
    "margin": 0.1,
    "use_all_neg": True,
    "hard_neg_weights": [10.0],
}
SPAN = {"drop_svmr_prob": 0.8, "lw_st_ed": 0.01, "train_span_start_step": 0}
EVALUATION = {
    "val_batch_size": 20,
    "vcmr_eval_video_batch_size": 50,
    "vcmr_eval_q_batch_size": 80,
}
MOMENTS = {
    "q2c_alpha": 20.0,
    "max_vcmr_video": 100,
    "max_before_nms": 200,
    "max_after_nms": 100,
    "full_eval_tasks": ["VCMR", "SVMR", "VR"],
}


def ranking(weight: float, pool: int, start: int = 2000) -> dict:
    return {
        **RANKING,
        "lw_neg_q": weight,
        "lw_neg_ctx": weight,
        "hard_pool_size": [pool],
        "hard_negtiave_start_step": [start],
    }


def moments(shortest: int, longest: int, nms: float, types: bool) -> dict:
    lengths = {"min_pred_l": shortest, "max_pred_l": longest}
    return {
        **SPAN,
        **EVALUATION,
        **MOMENTS,
        **lengths,
        "nms_thd": nms,
        "eval_with_query_type": types,
    }


TVR = {**ranking(8.0, 20), **moments(2, 16, 0.5, True)}
MSRVTT = {**ranking(10.0, 80), **EVALUATION, "max_vr_video": 100}
SPECIAL = {
    "train-tvr-8gpu": TVR,
    "train-tvr-1gpu": TVR,
    "train-how2r-8gpu": {**TVR, "eval_with_query_type": False},
    "train-didemo_video_sub-8gpu": {**ranking(10.0, 80), **moments(2, 16, -1.0, False)},
    "train-didemo_video_only-4gpu": {**ranking(10.0, 80), **moments(3, 6, -1.0, False)},
    "train-msrvtt_video_sub-4gpu": MSRVTT,
    "train-msrvtt_video_only-4gpu": MSRVTT,
    "train-tvqa-8gpu": {"lw_st_ed": 0.4, "val_batch_size": 10},
    "train-how2qa-8gpu": {"lw_st_ed": 0.4, "val_batch_size": 10},
    "train-violin-8gpu": {"compressed_db": True, "val_batch_size": 10},
    "train-tvc-8gpu": {"lsr": 0.1, "max_gen_step": 30, "max_cap_per_vid": -1, "val_batch_size": 8},
    "pretrain-tv-16gpu": {
        **ranking(8.0, 20, 20000),
        **SPAN,
        "mask_prob": 0.15,
        "val_batch_size": 32,
        "targets_ratio": [1.0],
        "vfeat_interval": 1.5,
    },
}

QUERIES = ("train_query_txt_db", "val_query_txt_db", "test_query_txt_db", "sub_txt_db", "vfeat_db")
PATHS = {
    "train-tvr-8gpu": ("tvr_train", "tvr_val", None, "tv_subtitles", "tv"),
    "train-tvr-1gpu": ("tvr_train", "tvr_val", None, "tv_subtitles", "tv"),
    "train-how2r-8gpu": ("how2r_train", "how2r_val", None, "how2_subtitles", "how2"),
    "train-didemo_video_sub-8gpu": (
        "didemo_train",
        "didemo_val",
        "didemo_test",
        "didemo_subtitles",
        "didemo",
    ),
    "train-msrvtt_video_sub-4gpu": (
        "msrvtt_train",
        "msrvtt_val",
        "msrvtt_test",
        "msrvtt_subtitles",
        "msrvtt",
    ),
    "train-tvqa-8gpu": ("tvqa_train", "tvqa_val", None, "tv_subtitles", "tv"),
    "train-how2qa-8gpu": ("how2qa_train", "how2qa_val", None, "how2_subtitles", "how2"),
    "train-violin-8gpu": (
        "violin_train",
        "violin_val",
        "violin_test",
        "violin_subtitles",
        "violin",
    ),
}
for _name in ("didemo_video_only-4gpu", "msrvtt_video_only-4gpu"):
    _data = _name.partition("_")[0]
    PATHS[f"train-{_name}"] = (*(f"{_data}_{s}" for s in ("train", "val", "test")), None, _data)

# Where runs go, beside /storage/{task}_default.
FOLDERS = {"train-tvr-1gpu": "tvr_1gpu", "pretrain-tv-16gpu": "default_pretrain_tv"}

RECIPES = sorted(path.stem for path in CONFIG.glob("*.json") if not path.stem.startswith("hero_"))
DEBUG = [name for name in RECIPES if name.startswith("debug-")]


def recipe(name: str) -> Options:
    cls = SCRIPTS[name.split("-")[1]]
    return parse_options(cls, ["--config", str(CONFIG / f"{name}.json")])


def test_every_recipe_is_checked_here():
    assert set(RECIPES) == set(NUMBERS) | set(DEBUG) == set(SPECIAL) | set(DEBUG)
    assert {name.removeprefix("debug-") for name in DEBUG} == set(SCRIPTS) - {"tv"}


@pytest.mark.parametrize("name", NUMBERS)
def test_published_numbers(name):
    opts = recipe(name)
    batch, steps, rate, factor, total, warmup, valid, clip, text, context, interval = NUMBERS[name]
    assert (opts.train_batch_size, opts.gradient_accumulation_steps) == (batch, steps)
    assert (opts.learning_rate, opts.lr_mul) == (rate, factor)
    assert (opts.num_train_steps, opts.warmup_steps) == (total, warmup)
    assert (opts.valid_steps, opts.save_steps) == (valid, valid)
    assert (opts.max_clip_len, opts.max_txt_len) == (clip, text)
    assert context is None or opts.sub_ctx_len == context
    assert interval is None or opts.vfeat_interval == interval
    values = options_to_dict(opts)
    expected = {"compressed_db": False, **COMMON, **SPECIAL[name]}
    assert {key: values[key] for key in expected} == expected


@pytest.mark.parametrize("name", NUMBERS)
def test_recipes_start_from_the_published_weights(name):
    opts = recipe(name)
    pretraining = name.startswith("pretrain")
    init = "pretrain-tv-init.bin" if pretraining else "hero-tv-ht100.pt"
    assert opts.checkpoint == f"/pretrain/{init}"
    assert (opts.load_partial_pretrained, opts.skip_layer_loading) == (pretraining, pretraining)
    size = {"tvc": "hero_tvc", "tv": "hero_pretrain"}.get(name.split("-")[1], "hero_finetune")
    assert opts.model_config == f"config/{size}.json"
    assert opts.pin_mem


@pytest.mark.parametrize("name", PATHS)
def test_container_paths_of_queries(name):
    opts = recipe(name)
    texts = [text and f"/txt/{text}.db" for text in PATHS[name][:4]]
    assert [getattr(opts, key) for key in QUERIES] == [*texts, f"/video/{PATHS[name][4]}"]


def test_container_paths_of_captions_and_pretraining():
    opts = recipe("train-tvc-8gpu")
    assert (opts.train_db, opts.val_db) == ("/txt/tvc_train.db", "/txt/tvc_val.db")
    assert opts.val_ref == "/txt/tvc_val_release.jsonl"
    assert (opts.sub_txt_db, opts.vfeat_db) == ("/txt/tv_subtitles.db", "/video/tv")
    (corpus,) = recipe("pretrain-tv-16gpu").corpora()
    assert (corpus.name, corpus.vfeat_interval) == ("tv", 1.5)
    assert (corpus.sub_txt_db, corpus.vfeat_db) == ("/txt/tv_subtitles.db", "/video/tv")
    (split,) = corpus.splits
    assert (split.tasks, split.ratio) == (["mlm", "mfm-nce", "fom", "vsm"], [2, 2, 1, 2])
    assert split.train_idx == "/txt/pretrain_splits/tv_train.json"
    assert split.val_idx == "/txt/pretrain_splits/tv_val.json"


@pytest.mark.parametrize("name", NUMBERS)
def test_published_run_folders(name):
    folder = FOLDERS.get(name, f"{name.split('-')[1]}_default")
    assert recipe(name).output_dir == f"/storage/{folder}"


def test_no_two_recipes_share_a_run_folder():
    folders = [recipe(name).output_dir for name in RECIPES]
    assert len(set(folders)) == len(folders)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_use_every_key_and_name_their_task(name, caplog):
    opts = recipe(name)
    assert caplog.text == ""
    if not isinstance(opts, PretrainOptions):
        assert opts.task == name.split("-")[1]
    ModelConfig.from_json(ROOT / opts.model_config)


@pytest.mark.parametrize("name", DEBUG)
def test_debug_recipes_are_small_and_stay_in_the_demo_folder(name):
    opts = recipe(name)
    assert opts.num_train_steps <= 500
    assert not (opts.fp16 or opts.bf16) and opts.checkpoint is None and opts.n_workers == 1
    assert ModelConfig.from_json(ROOT / opts.model_config).f_config.hidden_size == 128
    values = options_to_dict(opts)
    paths = [value for key, value in values.items() if key.endswith(("_db", "_dir")) and value]
    assert all(str(path).startswith("demo/") for path in paths if path is not True)
