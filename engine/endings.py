"""The end of a run: its best validation, and what to do next."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from config.groups import TrainingOptions
from engine.restore import RunFolder
from utils.errors import UserError
from utils.files import read_jsonl
from utils.logger import LOGGER

BEST = "best"  # that checkpoint on command lines
# Main metrics of tasks, higher is better; the first that a validation has is used.
MAIN_METRICS = ("VCMR/0.7-r1", "SVMR/0.7-r1", "VR/r1", "accuracy", "CIDEr", "Meta-Ave")


@dataclass(frozen=True)
class Validation:
    """A validated step and one of its metrics."""

    step: int
    metric: str
    value: float


def _lines(folder: RunFolder) -> Iterator[tuple[int, str, float | str]]:
    """Yield step, name and value of all metrics of all validations; some values are texts."""
    path = folder.log / "metrics.jsonl"
    for _, line in read_jsonl(path) if path.is_file() else ():
        step, name, value = (line.get(key) for key in ("step", "name", "value"))
        if str(name).startswith("valid/") and isinstance(step, int) and value is not None:
            yield step, str(name).removeprefix("valid/"), value


def validations(folder: RunFolder) -> list[Validation]:
    """Return the validations of a run's main metric, in the order of their steps."""
    lines = [
        Validation(step, metric, value)
        for step, metric, value in _lines(folder)
        if not isinstance(value, str)
    ]
    by_metric = ([line for line in lines if line.metric == metric] for metric in MAIN_METRICS)
    return next((found for found in by_metric if found), [])


def validated_metrics(folder: RunFolder, step: int | None) -> dict[str, float | str]:
    """Return all metrics of the validation after ``step``, without losses."""
    return {
        metric: value
        for validated, metric, value in _lines(folder)
        if validated == step and "loss/" not in metric
    }


def best_validation(folder: RunFolder) -> Validation:
    """Return the validation with the highest main metric whose checkpoint exists (the first of
    equals).

    Raises:
        UserError: there is none.
    """
    found = validations(folder)
    best = _best_kept(folder, found)
    if best is None:
        metrics = folder.log / "metrics.jsonl"
        lacking = f"{metrics} has no {' or '.join(MAIN_METRICS)} of a validation"
        if found:
            lacking = f"{folder.checkpoints} has no checkpoint of a validated step"
        raise UserError(f"{lacking}, so none is the best: name a step or a file")
    if any(each.value > best.value for each in found):
        LOGGER.warning("checkpoints of better validations than step %d's are gone", best.step)
    return best


def _best_kept(folder: RunFolder, found: list[Validation]) -> Validation | None:
    kept = [each for each in found if folder.checkpoint(each.step).is_file()]
    return max(kept, key=lambda each: each.value, default=None)  # of equals the first


def log_best(folder: RunFolder, best: Validation) -> None:
    """Log which checkpoint is the best."""
    path = folder.checkpoint(best.step)
    LOGGER.info("best validation: step %d, %s %.2f: %s", best.step, best.metric, best.value, path)


def log_summary(folder: RunFolder, options: TrainingOptions) -> None:
    """Log which checkpoint of a finished run is the best, and the command that evaluates it."""
    last = options.num_train_steps
    LOGGER.info("training ended after step %d: %s", last, folder.checkpoint(last))
    best = _best_kept(folder, validations(folder))
    if best is not None:
        log_best(folder, best)
    words = {name: shlex.quote(str(value)) for name, value in vars(options).items()}
    words["output_dir"] = shlex.quote(str(folder.path))
    LOGGER.info("%s", options.next_step.format(**words, best=last if best is None else BEST))
