# ruff: noqa: F401 (names for other folders)
"""The options of every script: one class each, read by ``parse_options(Class, argv)``."""

from config.evaluation import (
    ScorerOptions,
    SearchOptions,
    TvcInferenceOptions,
    VatexInferenceOptions,
    VcmrEvalOptions,
    VideoQaEvalOptions,
    ViolinEvalOptions,
    VrEvalOptions,
    Yc2cInferenceOptions,
)
from config.options import options_to_dict
from config.parsing import changed_options, load_run_options, parse_options
from config.pretraining import CorpusOptions, PretrainOptions, SplitOptions
from config.training import TvcOptions, VcmrOptions, VideoQaOptions, ViolinOptions, VrOptions
from config.value import ValueOptions
