#!/usr/bin/env python
"""Fine-tune HERO on video captioning: TVC.

horovodrun -np 8 python train_tvc.py --config config/train-tvc-8gpu.json
"""

from config.config import TvcOptions, parse_options
from data.check.checkup import check_before_training
from data.loader import TrainLoader
from data.sources import open_videos
from data.stores.lmdb_io import TextDb
from data.tvc import CaptionDataset, caption_texts
from data.video import longest_video
from data.vocabulary import Vocabulary
from engine.build import build_for_training
from engine.run import on_main, start_training
from engine.trainer import Task, Trainer
from evaluation.caption_metrics import try_scorers
from evaluation.caption_split import CaptionSplit
from model.tvc import HeroForTvc
from utils.errors import run_main


def main(argv: list[str] | None = None) -> dict[str, float | str]:
    """Train, or resume training; return the last validation's metrics."""
    options = parse_options(TvcOptions, argv)
    run = start_training(options)
    check_before_training(options, run.model_config)
    on_main(run.comm, try_scorers)  # fail now rather than at the first validation
    captions = caption_texts(options.train_db, run.vocab_size)
    run.keep_tokenizer(captions)
    videos = open_videos(options, TextDb(options.sub_txt_db, run.vocab_size))
    sampling = options.max_cap_per_vid, options.max_txt_len, options.seed
    train = CaptionDataset(captions, videos.source, *sampling)
    vocabulary = Vocabulary.of(captions, options.toker)
    validation = CaptionSplit(options.val_ref, videos.source, vocabulary, run, need_references=True)
    val = CaptionDataset(caption_texts(options.val_db, run.vocab_size), videos.source)
    width, longest = videos.features.width, longest_video(videos.features)
    model = build_for_training(HeroForTvc, run, width, longest, label_smoothing=options.lsr)
    task = Task(
        name=options.task,
        model=model,
        loader=TrainLoader(train, train.collate, run),
        loss_weights={"caption": 1.0},
        validate=lambda step: validation.validate(model, val, step),
    )
    return Trainer(task, run).train()


if __name__ == "__main__":
    run_main(main)
