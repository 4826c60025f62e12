"""Keys and flags of the original that are not options here.

Its configs and ``hps.json`` are read as they are. Other spellings of an option are that option's
``aliases``; everything else that the original accepts is declared here, so that a key unknown to
both programs is an error.
"""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from config.groups import MomentEvalOptions, SpanLossOptions
from config.options import Options, option_names, show
from config.training import TvcOptions, VrOptions
from utils.logger import LOGGER

# Keys of JSON files that are ignored: the launcher sets ranks, a config cannot name another, and
# captions of a test split have no references to validate with.
IGNORED_KEYS = frozenset({"rank", "n_gpu", "local_rank", "config", "test_db"})

# Switches that JSON files may have negated.
NEGATED_KEYS: Mapping[str, str] = {"no_fp16": "fp16", "no_pin_mem": "pin_mem"}

# Options that a script of the original accepts and that have no effect here: video retrieval has no
# moments to train on or to list.
FLAGS_WITHOUT_EFFECT: Mapping[type[Options], tuple[str, ...]] = {
    TvcOptions: ("test_db",),
    VrOptions: (
        *inspect.get_annotations(SpanLossOptions),
        *inspect.get_annotations(MomentEvalOptions),
    ),
}

# Options of its recipes that have a fixed value here.
FIXED_OPTIONS: Mapping[str, Any] = {"distributed_eval": True}

# A file may hold these under several names with different values; they change no result.
EVALUATION_BATCH_SIZES = ("vcmr_eval_q_batch_size", "vcmr_eval_video_batch_size", "val_batch_size")

# Its defaults where they differ from ours, which are those of the published recipes.
DEFAULTS: Mapping[str, Any] = {
    "optim": "adam",
    "learning_rate": 3e-5,
    "gradient_accumulation_steps": 16,
    "grad_norm": 0.25,
    "weight_decay": 0.0,
    "warmup_steps": 4000,
    "seed": 42,
    "lw_neg_q": 0.0,
    "lw_neg_ctx": 0.0,
    "lw_st_ed": 1.0,
    "drop_svmr_prob": 0.0,
    "train_span_start_step": -1,
    "hard_negtiave_start_step": [10_000],
}


def json_names(cls: type[Options]) -> dict[str, str]:
    """Return every key that a JSON file may have → the option's name, own names before aliases."""
    names = option_names(cls)
    if evaluated := next((name for name in EVALUATION_BATCH_SIZES if name in names), None):
        names.setdefault("batch_size", evaluated)  # so called in the original
    return names | {key: name for key, name in NEGATED_KEYS.items() if name in names}


def warn_of_other_defaults(opts: Options, given: Iterable[str], source: str) -> None:
    """Warn of options that the file ``source`` leaves out and that have another default here."""
    left_out = DEFAULTS.keys() & json_names(type(opts)).keys() - set(given)
    changed = [
        f"{name} {show(getattr(opts, name))} ({show(theirs)})"
        for name, theirs in DEFAULTS.items()
        if name in left_out and getattr(opts, name) != theirs
    ]
    if changed:
        LOGGER.warning(
            "%s leaves out options whose default is not the original's (in brackets): %s",
            *(source, ", ".join(changed)),
        )
