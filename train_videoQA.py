#!/usr/bin/env python
"""Fine-tune HERO on video question answering: TVQA, How2QA.

horovodrun -np 8 python train_videoQA.py --config config/train-tvqa-8gpu.json
"""

from collections.abc import Mapping
from functools import partial

from config.config import VideoQaOptions, parse_options
from config.training import AnswerOptions
from data.candidates import CandidateDataset
from data.check.checkup import check_before_training
from data.loader import TrainLoader
from data.sources import open_videos
from data.stores.lmdb_io import TextDb
from data.video import longest_video
from data.videoQA import QuestionDataset
from engine.build import build_for_training
from engine.run import start_training
from engine.trainer import Task, Trainer
from engine.validation import validate_splits
from evaluation.answer_split import AnswerSplit
from model.candidates import CandidateModel
from model.videoQA import MODELS
from utils.errors import run_main


def main(argv: list[str] | None = None) -> dict[str, float | str]:
    """Train, or resume training; return the last validation's metrics."""
    options = parse_options(VideoQaOptions, argv)
    weights = {"qa": 1.0, "st_ed": options.lw_st_ed}
    return train_to_answer(options, QuestionDataset, MODELS[options.task], weights)


def train_to_answer(
    options: AnswerOptions,
    dataset_class: type[CandidateDataset],
    model_class: type[CandidateModel],
    weights: Mapping[str, float],
) -> dict[str, float | str]:
    """Train a task that judges texts by a video.

    Args:
        options, dataset_class, model_class: of the task.
        weights: factor of each loss.
    """
    run = start_training(options)
    check_before_training(options, run.model_config)
    texts = TextDb(options.train_query_txt_db, run.vocab_size)
    run.keep_tokenizer(texts)
    videos = open_videos(options, texts)
    train = dataset_class(texts, videos.source, options.max_txt_len, training=True)
    splits = [
        AnswerSplit(name, dataset_class(TextDb(path, run.vocab_size), videos.source), weights, run)
        for name, path in options.validation_dbs().items()
    ]
    width, longest = videos.features.width, longest_video(videos.features)
    model = build_for_training(model_class, run, width, longest)
    validation = {split.name: partial(split.validate, model) for split in splits}
    task = Task(
        name=options.task,
        model=model,
        loader=TrainLoader(train, train.collate, run),
        loss_weights=weights,
        validate=partial(validate_splits, validation),
    )
    return Trainer(task, run).train()


if __name__ == "__main__":
    run_main(main)
