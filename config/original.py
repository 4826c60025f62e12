"""What files and command lines of the original have that no option here stands for.

Its configs and ``hps.json`` are read as they are. Other spellings of an option are that option's
``aliases``; everything else that the original knows is declared here, so that a key neither program
knows is still a mistake.
"""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from config.groups import MomentEvalOptions, SpanLossOptions
from config.options import Options, once_per_class, option_names, show
from config.training import TvcOptions, VrOptions

# Keys of JSON files that are ignored: ranks are the launcher's business, a config does not name
# another one, and captions of a test split have no references to validate with.
IGNORED_KEYS = frozenset({"rank", "n_gpu", "local_rank", "config", "test_db"})

# Switches that JSON files may have turned round.
NEGATED_KEYS: Mapping[str, str] = {"no_fp16": "fp16", "no_pin_mem": "pin_mem"}

# Options that a script of the original took and that have no effect here: video retrieval has no
# moments to train on or to list.
FLAGS_WITHOUT_EFFECT: Mapping[type[Options], tuple[str, ...]] = {
    TvcOptions: ("test_db",),
    VrOptions: (
        *inspect.get_annotations(SpanLossOptions),
        *inspect.get_annotations(MomentEvalOptions),
    ),
}

# Options of its recipes that have one value here, so that any other has no effect.
FIXED_OPTIONS: Mapping[str, Any] = {"distributed_eval": True}

# A file may hold these under several names with different values; they change no result.
EVALUATION_BATCH_SIZES = ("vcmr_eval_q_batch_size", "vcmr_eval_video_batch_size", "val_batch_size")

# Its defaults where ours, those of the published recipes, are others.
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


@once_per_class
def json_names(cls: type[Options]) -> dict[str, str]:
    """Map every key that a JSON file may have to the option's name, own names before others.

    In the original ``batch_size`` is that of evaluation.
    """
    names = dict(option_names(cls))
    counterpart = next((name for name in EVALUATION_BATCH_SIZES if name in names), None)
    if counterpart:
        names.setdefault("batch_size", counterpart)
    return names | {key: name for key, name in NEGATED_KEYS.items() if name in names}


def other_defaults(opts: Options, given: Iterable[str]) -> list[str]:
    """List options that nobody gave and whose default was another one, as ``name ours (theirs)``.

    Args:
        opts: the resolved options.
        given: names of the options that a file or the command line set.
    """
    left_out = DEFAULTS.keys() & json_names(type(opts)).keys() - set(given)
    return [
        f"{name} {show(getattr(opts, name))} ({show(theirs)})"
        for name, theirs in DEFAULTS.items()
        if name in left_out and getattr(opts, name) != theirs
    ]
