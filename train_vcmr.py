#!/usr/bin/env python
"""Fine-tune HERO on corpus moment retrieval: TVR, How2R, DiDeMo.

python train_vcmr.py --config config/train-tvr-1gpu.json
horovodrun -np 8 python train_vcmr.py --config config/train-tvr-8gpu.json
"""

from collections.abc import Mapping
from functools import partial

from config.config import VcmrOptions, parse_options
from config.training import RetrievalOptions
from data.check.checkup import check_before_training
from data.loader import TrainLoader
from data.run_features import channel_of
from data.sources import open_videos
from data.stores.lmdb_io import TextDb
from data.vcmr import MomentDataset, collate_moments
from data.video import longest_video
from engine.build import build_for_training
from engine.run import start_training
from engine.trainer import Task, Trainer
from engine.validation import validate_splits
from evaluation.ranking import SearchSettings
from evaluation.retrieval_split import RetrievalSplit
from model.vcmr import (
    HeroForVcmr,
    MomentRetrievalModel,
    MomentSchedule,
    ranking_gradient_factors,
    ranking_weights,
)
from utils.errors import run_main


def main(argv: list[str] | None = None) -> dict[str, float | str]:
    """Train, or resume training; return the last validation's metrics."""
    options = parse_options(VcmrOptions, argv)
    weights = ranking_weights(options) | {"st_ed": options.lw_st_ed}
    return train_retrieval(options, HeroForVcmr, weights, SearchSettings.for_moments(options))


def train_retrieval(
    options: RetrievalOptions,
    model_class: type[MomentRetrievalModel],
    weights: Mapping[str, float],
    settings: SearchSettings,
) -> dict[str, float | str]:
    """Train a task that retrieves videos, or moments in them, for queries.

    Args:
        options, model_class: of the task.
        weights: factor of each loss.
        settings: of the search in validation.
    """
    run = start_training(options)
    check_before_training(options, run.model_config)
    queries = TextDb(options.train_query_txt_db, run.vocab_size)
    run.keep_tokenizer(queries)
    videos = open_videos(options, queries, channel_of(options.task))
    sampling = options.max_txt_len, options.sampled_by_q, options.seed
    train = MomentDataset(queries, videos.source, *sampling)
    splits = [
        RetrievalSplit(name, TextDb(path, run.vocab_size), videos, run, settings)
        for name, path in options.validation_dbs().items()
    ]
    width, longest = videos.features.width, longest_video(videos.features)
    schedule = MomentSchedule.from_options(options)
    model = build_for_training(model_class, run, width, longest, schedule=schedule, comm=run.comm)
    factors = ranking_gradient_factors(options.ranking_gradient, run.comm.size, run.emulated_ranks)
    validation = {split.name: partial(split.validate, model, weights) for split in splits}
    task = Task(
        name=options.task,
        model=model,
        loader=TrainLoader(train, collate_moments, run),
        loss_weights=weights,
        validate=partial(validate_splits, validation),
        set_step=model.set_step,
        gradient_factors=factors,
    )
    return Trainer(task, run).train()


if __name__ == "__main__":
    run_main(main)
