#!/usr/bin/env python
"""Pre-train HERO on videos with subtitles.

python pretrain.py --config config/pretrain-tv-16gpu.json --output_dir runs/pretrain_tv
horovodrun -np 16 python pretrain.py --config config/pretrain-tv-16gpu.json
"""

from functools import partial

from config.config import PretrainOptions, parse_options
from data.check.checkup import check_before_training
from data.loader import TrainLoader, evaluation_batches
from data.mix import MixedBatches, TaskMix
from data.pretraining import OBJECTIVES, collate_objective, make_parts, open_corpora
from data.video import longest_video
from engine.build import build_for_training
from engine.run import start_training
from engine.trainer import Task, Trainer
from evaluation.objectives import validate_objectives
from model.pretrain import HeroForPretraining
from model.vcmr import MomentSchedule, ranking_gradient_factors, ranking_weights
from utils.errors import run_main


def main(argv: list[str] | None = None) -> dict[str, float | str]:
    """Train, or resume training; return the last validation's metrics."""
    options = parse_options(PretrainOptions, argv)
    run = start_training(options)
    check_before_training(options, run.model_config)
    corpora = open_corpora(options, run.vocab_size)
    run.keep_tokenizer(corpora[0].source.subtitles)
    train, val = (make_parts(corpora, options, train=train) for train in (True, False))
    features = [corpus.source.features for corpus in corpora]
    width, longest = features[0].width, longest_video(*features)
    arguments = {"schedule": MomentSchedule.from_options(options), "comm": run.comm}
    model = build_for_training(HeroForPretraining, run, width, longest, **arguments)
    factors = ranking_gradient_factors(options.ranking_gradient, run.comm.size, run.emulated_ranks)
    weights = dict.fromkeys(OBJECTIVES, 1.0) | ranking_weights(options)
    weights["st_ed"] = options.lw_st_ed
    size, comm = options.train_batch_size, run.comm
    batches = MixedBatches(train, size, run.accumulation, comm.rank, comm.size, options.seed)
    size, collate = options.val_batch_size, collate_objective
    validation = {
        part.name: partial(evaluation_batches, part.dataset, collate, size, run, part.name)
        for part in val
    }
    task = Task(
        name="pretraining",
        model=model,
        loader=TrainLoader(TaskMix(train), collate_objective, run, batches),
        loss_weights=weights,
        validate=lambda step: validate_objectives(
            lambda batch: model.answer(batch).sums(weights), validation, comm
        ),
        set_step=model.set_step,
        gradient_factors=factors,
    )
    return Trainer(task, run).train()


if __name__ == "__main__":
    run_main(main)
