#!/usr/bin/env python
"""Fine-tune HERO on VALUE: any list of its data sets, one or several at a time.

horovodrun -np 8 python train_all_multitask.py --config config/value/train-all-multitask-8gpu.json
python train_retrieval.py --config config/value/train-yc2r-4gpu.json
"""

from collections.abc import Sequence
from functools import partial

from config.config import ValueOptions, parse_options
from config.groups import Kind
from config.value import RETRIEVAL
from data.check.checkup import check_before_training
from data.loader import TrainLoader
from data.mix import MixedBatches, TaskMix
from data.value_sets import Databases, OpenSet, collate_set, open_training_sets
from data.video import longest_video
from engine.build import build_for_training
from engine.run import Run, on_main, start_training
from engine.trainer import Task, Trainer
from evaluation.caption_metrics import try_scorers
from evaluation.listed_sets import open_validation, validate_listed
from model.multitask import HeroForMultiTask, set_weights
from model.vcmr import MomentSchedule, ranking_gradient_factors
from utils.errors import run_main


def main(argv: list[str] | None = None) -> dict[str, float | str]:
    """Train, or resume training; return the last validation's metrics."""
    options = parse_options(ValueOptions, argv)
    run = start_training(options)
    check_before_training(options, run.model_config)
    if any(entry.kind is Kind.CAPTIONS for entry in options.val_datasets):
        on_main(run.comm, try_scorers)  # fail now rather than at the first validation
    return Trainer(open_task(run), run).train()


def open_task(run: Run[ValueOptions]) -> Task:
    """Return the task of training a run's model on its data sets."""
    options = run.options
    databases = Databases(options, run.vocab_size)
    sets = open_training_sets(databases)
    run.keep_tokenizer(sets[0].texts)
    run.warn_of_other_tokenizer(*(each.texts for each in sets))
    validation = open_validation(run, databases)
    model = build_for_training(
        HeroForMultiTask,
        run,
        databases.features[0].width,
        longest_video(*databases.features),
        kinds={entry.kind for entry in options.train_datasets + options.val_datasets},
        schedule=MomentSchedule.from_options(options),
        comm=run.comm,
        label_smoothing=options.lsr,
    )
    ranking = ranking_gradient_factors(options.ranking_gradient, run.comm.size, run.emulated_ranks)
    return Task(
        name=", ".join(each.label for each in sets),
        model=model,
        loader=mixed_loader(sets, run),
        loss_weights={
            f"{each.label}/{name}": weight
            for each in sets
            for name, weight in set_weights(each.entry, options).items()
        },
        validate=partial(validate_listed, model, validation),
        set_step=model.set_step,
        gradient_factors={
            f"{each.label}/{name}": factor
            for each in sets
            if each.entry.kind in RETRIEVAL
            for name, factor in ranking.items()
        },
        loss_scale=lambda batch: batch.data_set,
    )


def mixed_loader(sets: Sequence[OpenSet], run: Run[ValueOptions]) -> TrainLoader:
    """Return the batches, of one set in each optimizer step, drawn by the sets' ratios."""
    parts = [each.part() for each in sets]
    size, seed = run.options.train_batch_size, run.options.seed
    batches = MixedBatches(parts, size, run.accumulation, run.comm.rank, run.comm.size, seed)
    return TrainLoader(TaskMix(parts), collate_set, run, batches)


if __name__ == "__main__":
    run_main(main)
