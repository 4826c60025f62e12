"""Starting a run: ranks, device, precision, folder, and whether it may go on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from config.config import changed_options, options_to_dict
from config.evaluation import RunOptions
from config.groups import OptimizerOptions, RankingLossOptions, TrainingOptions
from config.model_config import ModelConfig
from config.shared_model import SharedModel
from config.storage import require_reachable
from data.loader import LoadingRun, OptionsT
from data.stores.lmdb_io import TextDb
from data.tokenize import IDENTITY, other_tokenizer
from engine.endings import BEST, best_validation, log_best
from engine.precision import Precision
from engine.restore import RunFolder, check_restore_points
from utils.distributed import Communicator, setup
from utils.errors import UserError, as_user_error
from utils.files import read_json, write_json
from utils.logger import LOGGER, save_run_info, setup_logging

TrainingT = TypeVar("TrainingT", bound=TrainingOptions)
EvaluationT = TypeVar("EvaluationT", bound=RunOptions)


@dataclass(frozen=True)
class Checkpoint:
    """A file of trained weights, and what it is called in the names of results."""

    path: Path
    label: str

    @classmethod
    def of(cls, folder: RunFolder, wanted: str) -> "Checkpoint":
        """What ``--checkpoint`` names: a step of the run, its best, or a file.

        Raises:
            UserError: there is no such checkpoint.
        """
        if wanted == BEST:
            best = best_validation(folder)
            log_best(folder, best)
            wanted = str(best.step)
        return cls(folder.find_checkpoint(wanted), Path(wanted).stem)


@dataclass
class Run(LoadingRun[OptionsT], Generic[OptionsT]):
    """What a script stands on."""

    model_config: ModelConfig
    precision: Precision
    folder: RunFolder
    stand_in: int = 1  # ranks of the recipe that each rank stands in for
    checkpoint: Checkpoint | None = None  # to evaluate
    tokenizer: Mapping[str, Any] = field(default_factory=dict)  # what is known of it

    @property
    def accumulation(self: "Run[TrainingOptions]") -> int:
        """Batches per optimizer step."""
        return self.options.gradient_accumulation_steps * self.stand_in

    def keep_tokenizer(self, db: TextDb) -> None:
        """Note in the run's folder which tokenizer made a database that it learns from."""
        names = ("toker", "tokenizer", *IDENTITY)
        self.tokenizer = {name: db.meta[name] for name in names if name in db.meta}
        if self.comm.is_main:
            write_json(self.folder.tokenizer, self.tokenizer, indent=2)

    def warn_of_other_tokenizer(self, *databases: TextDb | None) -> None:
        """Warn of databases that another tokenizer made than the one that the model learnt from."""
        for db in databases:
            if db is not None and (difference := other_tokenizer(db.meta, self.tokenizer)):
                LOGGER.warning(
                    "%s was made with another tokenizer than the run's: its %s", db.path, difference
                )

    def require_tokenizer(self, name: str, meta: Mapping[str, Any]) -> None:
        """Refuse a tokenizer, by its :func:`data.tokenize.tokenizer_meta`, that is not the run's.

        Raises:
            UserError: it is not, as far as both are known.
        """
        if difference := other_tokenizer(meta, self.tokenizer):
            raise UserError(
                f"the tokenizer {name} is not the run's: its {difference}; name the right --toker "
                "(or HERO_TOKER)"
            )


def start_training(options: TrainingT) -> Run[TrainingT]:
    """Set up a training run, new or resumed.

    Raises:
        UserError: the folder holds a run with other options, or another program's.
    """
    require_reachable(options)
    comm, device = setup(options.seed)
    folder = RunFolder(options.output_dir)
    # Rank 0's folder alone counts: other hosts need not share it.
    on_main(comm, lambda: _claim(folder, options))
    model_config = ModelConfig.from_json(options.model_config)
    setup_logging(comm.is_main, folder.log / "log.txt")
    precision = Precision.from_options(options, device)
    if comm.is_main:
        folder.remove_leftovers()
        save_run_info(folder.path, options_to_dict(options), model_config.to_dict())
    LOGGER.info(
        "%s: %d rank(s) (%s) on %s, %s",
        folder.path,
        comm.size,
        comm.backend,
        device,
        precision.mode,
    )
    run = Run(options, comm, device, model_config, precision, folder, _stand_in(options, comm))
    _log_batch_size(run)
    return run


def on_main(comm: Communicator, action: Callable[[], object]) -> None:
    """Do something on rank 0; what is wrong there ends all ranks at once.

    Raises:
        UserError: what rank 0 says is wrong.
    """
    problem = None
    try:
        if comm.is_main:
            action()
    except Exception as error:
        known = as_user_error(error)
        if known is None:
            raise
        problem = str(known)
    problem = comm.all_gather_object(problem)[0]
    if problem is not None:
        raise UserError(problem)


def start_evaluation(options: EvaluationT) -> Run[EvaluationT]:
    """Set up the evaluation of a finished run.

    Raises:
        UserError: it has no such checkpoint.
    """
    require_reachable(options)
    comm, device = setup()
    folder = RunFolder(options.run_folder)
    setup_logging(comm.is_main)
    if model := SharedModel.find(options.checkpoint, folder.path):
        model_config = ModelConfig.from_dict(model.config["model_config"], str(model.folder))
        tokenizer = model.config.get("tokenizer", {})
        checkpoint = Checkpoint(model.weights, Path(model.name).name.replace(".", "_"))
    else:
        model_config = ModelConfig.from_json(folder.log / "model_config.json")
        tokenizer = read_json(folder.tokenizer) if folder.tokenizer.is_file() else {}
        checkpoint = Checkpoint.of(folder, options.checkpoint)
    return Run(
        options,
        comm,
        device,
        model_config,
        Precision.from_options(options, device),
        folder,
        checkpoint=checkpoint,
        tokenizer=tokenizer,
    )


def _claim(folder: RunFolder, options: TrainingOptions) -> None:
    check_restore_points(folder)  # before the first file in it is written
    folder.claim()
    _check_options(options, folder)


def _check_options(options: TrainingOptions, folder: RunFolder) -> None:
    saved = folder.log / "hps.json"
    if not (folder.restore_points and saved.exists()):
        return
    before = read_json(saved)
    if not isinstance(before, dict):
        raise UserError(
            f"{saved} must hold one JSON object of options; choose another --output_dir"
        )
    changes = changed_options(before, options)
    if changes and not options.allow_changed_options:
        raise UserError(
            f"{folder.path} holds a run with other options ({'; '.join(changes)}); choose another "
            "--output_dir, or go on with --allow_changed_options"
        )
    if changes:
        LOGGER.warning("going on with changed options: %s", "; ".join(changes))


def _stand_in(options: OptimizerOptions, comm: Communicator) -> int:
    """How many of the recipe's ranks one rank stands in for.

    Raises:
        UserError: the recipe's ranks cannot be shared out evenly.
    """
    recipe = options.num_gpus_of_recipe
    if recipe is None:
        return 1
    if recipe % comm.size:
        raise UserError(
            f"num_gpus_of_recipe {recipe} cannot be shared out evenly over {comm.size} ranks; "
            "start a number of ranks that divides it"
        )
    return recipe // comm.size


def _log_batch_size(run: Run[TrainingOptions]) -> None:
    options = run.options
    at_once = options.train_batch_size * run.comm.size
    LOGGER.info(
        "effective batch %d (%d a rank × %d rank(s) × %d accumulation steps)",
        at_once * run.accumulation,
        options.train_batch_size,
        run.comm.size,
        run.accumulation,
    )
    if run.stand_in > 1:
        LOGGER.info("each rank stands in for %d of the recipe's", run.stand_in)
    if isinstance(options, RankingLossOptions):
        LOGGER.info("ranking losses draw their negatives from %d items at once", at_once)
        if run.stand_in > 1:
            LOGGER.info("the recipe's drew them from %d items", at_once * run.stand_in)
        if options.ranking_gradient == "published" and run.comm.size * run.stand_in > 1:
            LOGGER.info(
                "the gradient of the ranking losses is divided by %d, as in the published training "
                "on so many GPUs (--ranking_gradient undivided: it is not)",
                run.comm.size * run.stand_in,
            )
