"""Start a run: ranks, device, precision, folder, and whether it may be resumed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from config.config import changed_options, options_to_dict
from config.evaluation import RunOptions
from config.groups import OptimizerOptions, RankingLossOptions, TrainingOptions
from config.model_config import ModelConfig
from config.options import show
from config.shared_model import SharedModel
from config.storage import from_container, require_reachable
from config.value import ValueOptions
from data.loader import LoadingRun, OptionsT
from data.stores.lmdb_io import TextDb, read_side
from data.tokenize import IDENTITY, other_tokenizer, tokenizer_name
from engine.endings import BEST, best_validation, log_best
from engine.precision import Precision
from engine.restore import RunFolder
from utils.distributed import Communicator, setup
from utils.errors import UserError, as_user_error
from utils.files import read_json, write_json
from utils.logger import LOGGER, save_run_info, setup_logging
from utils.runtime import set_deterministic

TrainingT = TypeVar("TrainingT", bound=TrainingOptions)
EvaluationT = TypeVar("EvaluationT", bound=RunOptions)


@dataclass(frozen=True)
class Checkpoint:
    """Weights to evaluate.

    Attributes:
        name: a step of the run, or a file, which may be missing.
        label: part of the names of results.
    """

    name: str
    label: str

    @classmethod
    def of(cls, folder: RunFolder, wanted: str) -> "Checkpoint":
        """Return the checkpoint that ``--checkpoint`` names: a step, the best one, or a file.

        Raises:
            UserError: the run has no best one.
        """
        if wanted == BEST:
            best = best_validation(folder)
            log_best(folder, best)
            wanted = str(best.step)
        return cls(wanted, Path(wanted).stem)


@dataclass
class Run(LoadingRun[OptionsT], Generic[OptionsT]):
    """What a script needs to train or evaluate a model.

    Attributes:
        emulated_ranks: ranks of the recipe that each rank emulates by accumulation.
        checkpoint: to evaluate; None in training.
        tokenizer: what is known of the one that made the databases.
    """

    model_config: ModelConfig
    precision: Precision
    folder: RunFolder
    emulated_ranks: int = 1
    checkpoint: Checkpoint | None = None
    tokenizer: Mapping[str, Any] = field(default_factory=dict)

    @property
    def vocab_size(self) -> int:
        """Vocabulary size of the model: token ids lie below it."""
        return self.model_config.f_config.num_words

    @property
    def evaluated(self) -> Checkpoint:
        """The checkpoint that is evaluated."""
        if self.checkpoint is None:
            raise ValueError(f"{self.folder.path} trains, it has no checkpoint to evaluate")
        return self.checkpoint

    @property
    def accumulation(self: "Run[TrainingOptions]") -> int:
        """Batches per optimizer step."""
        return self.options.gradient_accumulation_steps * self.emulated_ranks

    def keep_tokenizer(self, db: TextDb) -> None:
        """Save in the run's folder which tokenizer made a training database."""
        self.tokenizer = _of_tokenizer(db.meta, db.path)
        if self.comm.is_main:
            write_json(self.folder.tokenizer, self.tokenizer, indent=2)

    def warn_of_other_tokenizer(self, *databases: TextDb | None) -> None:
        """Warn of databases that were made with another tokenizer than the run's."""
        for db in databases:
            if db is not None and (difference := other_tokenizer(db.meta, self.tokenizer)):
                LOGGER.warning(
                    "%s was made with another tokenizer than the run's: its %s", db.path, difference
                )

    def require_tokenizer(self, what: str, meta: Mapping[str, Any]) -> None:
        """Check that the tokenizer of a ``meta.json`` is the run's, as far as is known.

        Raises:
            UserError: it is another; the message begins with ``what``.
        """
        if difference := other_tokenizer(meta, self.tokenizer):
            raise UserError(
                f"{what}: not the run's tokenizer: its {difference}; name the right --toker (or "
                "HERO_TOKER), or make the database again with it"
            )


def start_training(options: TrainingT) -> Run[TrainingT]:
    """Set up a training run, new or resumed.

    Raises:
        UserError: the folder holds a run with other options, or another program's.
    """
    require_reachable(options.output_dir, options.storage)
    set_deterministic(options.deterministic)
    comm, device = setup(options.seed)
    folder = RunFolder(options.output_dir)
    # Only rank 0 uses the folder: other hosts need not share it.
    on_main(comm, folder.claim)
    require_reachable(options, options.storage)
    model_config = ModelConfig.from_json(options.model_config)
    setup_logging(comm.is_main, folder.log / "log.txt")
    precision = Precision.from_options(options, device)
    on_main(comm, lambda: _check_options(options, folder))
    if comm.is_main:
        folder.remove_leftovers()
        save_run_info(folder.path, options_to_dict(options), model_config.to_dict())
    facts = folder.path, comm.size, comm.backend, device, precision.mode
    LOGGER.info("%s: %d rank(s) (%s) on %s, %s", *facts)
    emulated = _emulated_ranks(options, comm)
    run = Run(options, comm, device, model_config, precision, folder, emulated)
    _log_batch_sizes(run)
    return run


def on_main(comm: Communicator, action: Callable[[], object]) -> None:
    """Run an action on rank 0; a user's mistake there ends all ranks at once.

    Raises:
        UserError: of rank 0.
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
        UserError: it has no best checkpoint, or paths are those of the container.
    """
    require_reachable(options, options.storage)
    comm, device = setup()
    setup_logging(comm.is_main)
    return finished_run(options, comm, device)


def finished_run(
    options: EvaluationT, comm: Communicator, device: torch.device
) -> Run[EvaluationT]:
    """Return a finished run, or an exported model as one.

    Raises:
        UserError: it has no best checkpoint.
    """
    folder = RunFolder(options.run_folder)
    if model := SharedModel.find(options.checkpoint, folder.path):
        model_config = ModelConfig.from_dict(model.config["model_config"], str(model.folder))
        tokenizer = model.config["tokenizer"]
        checkpoint = Checkpoint(str(model.weights), Path(model.name).name.replace(".", "_"))
    else:
        model_config = ModelConfig.from_json(folder.log / "model_config.json")
        tokenizer = known_tokenizer(folder, options.storage)
        checkpoint = Checkpoint.of(folder, options.checkpoint)
    run = Run(options, comm, device, model_config, Precision.from_options(options, device), folder)
    return replace(run, checkpoint=checkpoint, tokenizer=tokenizer)


def known_tokenizer(folder: RunFolder, storage: str | None) -> dict[str, Any]:
    """Return what a run, or else one of its databases, tells of its tokenizer."""
    if folder.tokenizer.is_file():
        return read_json(folder.tokenizer, dict[str, Any])
    saved = from_container(read_json(folder.log / "hps.json", dict[str, Any]), storage)
    names = ("train_query_txt_db", "train_db", "val_query_txt_db", "query_txt_db", "sub_txt_db")
    sources = [saved, *saved.get("train_datasets", [])]
    for path in (source.get(name) for source in sources for name in names):
        if isinstance(path, str) and Path(path, "meta.json").is_file():
            return _of_tokenizer(read_side(Path(path, "meta.json")), Path(path))
    return {}


def _of_tokenizer(meta: Mapping[str, Any], database: Path) -> dict[str, Any]:
    known = {name: meta[name] for name in IDENTITY if name in meta}
    return {"toker": tokenizer_name(meta, database), **known}


def _check_options(options: TrainingOptions, folder: RunFolder) -> None:
    saved = folder.log / "hps.json"
    if not (folder.restore_points and saved.exists()):
        return
    changes = changed_options(read_json(saved, dict), options)
    if changes and not options.allow_changed_options:
        raise UserError(
            f"{folder.path} holds a run with other options ({'; '.join(changes)}); choose another "
            "--output_dir, or resume with --allow_changed_options"
        )
    if changes:
        LOGGER.warning("resuming with changed options: %s", "; ".join(changes))


def _emulated_ranks(options: OptimizerOptions, comm: Communicator) -> int:
    """Return how many of the recipe's ranks each rank emulates.

    Raises:
        UserError: the number of ranks does not divide the recipe's.
    """
    recipe = options.num_gpus_of_recipe or comm.size
    if recipe % comm.size:
        raise UserError(
            f"num_gpus_of_recipe {recipe} cannot be shared out evenly over {comm.size} ranks; "
            "start a number of ranks that divides it"
        )
    return recipe // comm.size


def _log_batch_sizes(run: Run[TrainingOptions]) -> None:
    options, ranks = run.options, run.comm.size
    sizes, ranked = {"": options.train_batch_size}, isinstance(options, RankingLossOptions)
    if isinstance(options, ValueOptions):
        sizes = {
            f"{each.name}: ": each.batch_size or options.train_batch_size
            for each in options.train_datasets
        }
        ranked = options.trains_retrieval
    for name, size in sizes.items():
        LOGGER.info(
            "%seffective batch %d (%d a rank × %d rank(s) × %d accumulation steps)",
            *(name, size * ranks * run.accumulation, size, ranks, run.accumulation),
        )
    if run.emulated_ranks > 1:
        LOGGER.info("each rank emulates %d of the recipe's", run.emulated_ranks)
    if ranked and isinstance(options, RankingLossOptions):
        at_once = [size * ranks for size in sizes.values()]
        LOGGER.info("ranking losses draw their negatives from %s items at once", show(at_once))
        if run.emulated_ranks > 1:
            recipe = [size * run.emulated_ranks for size in at_once]
            LOGGER.info("the recipe's drew them from %s items", show(recipe))
        if options.ranking_gradient == "published" and ranks * run.emulated_ranks > 1:
            LOGGER.info(
                "the gradient of the ranking losses is divided by %d, as in the published training "
                "on so many GPUs (--ranking_gradient undivided: it is not)",
                ranks * run.emulated_ranks,
            )
