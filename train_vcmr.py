#!/usr/bin/env python
"""Fine-tune HERO on corpus moment retrieval: TVR, How2R, DiDeMo.

python train_vcmr.py --config config/train-tvr-1gpu.json
horovodrun -np 8 python train_vcmr.py --config config/train-tvr-8gpu.json
"""

from config.config import VcmrOptions, parse_options
from data.lmdb_io import TextDb
from data.loader import TrainLoader
from data.retrieval_split import RetrievalSplit
from data.sources import is_video_only, open_videos
from data.vcmr import MomentDataset, collate_moments
from model.build import build_for_training
from model.vcmr import HeroForVcmr, MomentSchedule, ranking_weights
from utils.engine import Task, Trainer
from utils.errors import run_main
from utils.moment_ranking import SearchSettings
from utils.run import start_training


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Train, or go on training; returns the last validation's metrics."""
    options = parse_options(VcmrOptions, argv)
    run = start_training(options)
    queries = TextDb(options.train_query_txt_db)
    videos = open_videos(options, queries, is_video_only(options.task))
    train = MomentDataset(
        queries, videos.source, options.max_txt_len, options.sampled_by_q, options.seed
    )
    model = build_for_training(
        HeroForVcmr,
        run,
        videos.features.width,
        schedule=MomentSchedule.from_options(options),
        comm=run.comm,
    )
    weights = ranking_weights(options) | {"st_ed": options.lw_st_ed}
    validation = RetrievalSplit("val", TextDb(options.val_query_txt_db), videos, run)
    task = Task(
        name=options.task,
        model=model,
        loader=TrainLoader(train, collate_moments, run),
        loss_weights=weights,
        validate=lambda step: validation.validate(
            model, weights, SearchSettings.for_moments(options), step
        ),
        begin_batch=model.begin_batch,
    )
    return Trainer(task, run).train()


if __name__ == "__main__":
    run_main(main)
