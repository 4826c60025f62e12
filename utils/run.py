"""Starting a run: ranks, device, precision, folder, and whether it may go on."""

from dataclasses import dataclass
from typing import Any

import torch

from config.config import changed_options
from config.model_config import ModelConfig
from utils.distributed import Communicator, setup
from utils.errors import UserError
from utils.files import read_json
from utils.logger import LOGGER, save_run_info, setup_logging
from utils.precision import Precision
from utils.restore import RunFolder


@dataclass
class Run:
    """What a script stands on."""

    options: Any
    model_config: ModelConfig
    comm: Communicator
    device: torch.device
    precision: Precision
    folder: RunFolder


def start_training(options: Any) -> Run:
    """Set up a training run, new or resumed.

    Args:
        options: ``config.groups.TrainingOptions``.

    Raises:
        UserError: the folder holds a run with other options.
    """
    comm, device = setup(options.seed)
    folder = RunFolder(options.output_dir)
    model_config = ModelConfig.from_json(options.model_config)
    precision = Precision.from_options(options, device)
    _check_options(options, folder)
    comm.barrier()  # all have compared with the old options before they are replaced
    if comm.is_main:
        folder.remove_leftovers()
        save_run_info(folder.path, options, model_config)
    setup_logging(comm.is_main, folder.log / "log.txt")
    LOGGER.info(
        "%s: %d rank(s) (%s) on %s, %s",
        folder.path,
        comm.size,
        comm.backend,
        device,
        precision.mode,
    )
    _log_batch_size(options, comm)
    return Run(options, model_config, comm, device, precision, folder)


def start_evaluation(options: Any, run_dir: str) -> Run:
    """Set up the evaluation of a finished run.

    Args:
        options: ``config.evaluation.RunOptions``.
        run_dir: the run's folder.
    """
    comm, device = setup()
    folder = RunFolder(run_dir)
    model_config = ModelConfig.from_json(folder.log / "model_config.json")
    setup_logging(comm.is_main)
    return Run(options, model_config, comm, device, Precision.from_options(options, device), folder)


def _check_options(options: Any, folder: RunFolder) -> None:
    saved = folder.log / "hps.json"
    if not (folder.can_restore and saved.exists()):
        return
    changes = changed_options(read_json(saved), options)
    if changes and not options.allow_changed_options:
        raise UserError(
            f"{folder.path} holds a run with other options ({'; '.join(changes)}); choose another "
            "--output_dir, or go on with --allow_changed_options"
        )
    if changes:
        LOGGER.warning("going on with changed options: %s", "; ".join(changes))


def _log_batch_size(options: Any, comm: Communicator) -> None:
    step = options.train_batch_size * comm.size
    LOGGER.info(
        "effective batch %d (%d a rank × %d rank(s) × %d accumulation steps); ranking losses see "
        "%d items at once",
        step * options.gradient_accumulation_steps,
        options.train_batch_size,
        comm.size,
        options.gradient_accumulation_steps,
        step,
    )
