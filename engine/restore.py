"""A run's folder and its restore points.

A restore point holds everything that the rest of a run depends on. Files are replaced atomically,
and the previous point is kept as a backup: after a kill at any instant one of them is complete.
"""

import os
import random
import re
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.errors import UserError, shorten
from utils.files import atomic_write, check_output, named_path, remove_leftovers
from utils.locks import FileLock, HeldError
from utils.logger import LOGGER
from utils.tensor_files import UnreadableFileError, load_tensors

# Keys of a restore point: ours, and those of the published code.
OWN_TYPES: dict[str, type] = {"step": int, "random": list, "running": list}
OWN_TYPES |= dict.fromkeys(("metrics", "model", "optimizer", "precision", "loader"), dict)
ORIGINAL_KEYS = {"global_step", "model_state_dict", "optim_state_dict"}
# The published code saves the last step of a run a second time, as final.
STEP = re.compile(r"([0-9]{1,18})(_final)?")
# Temporary files, also as earlier versions named them.
LEFTOVER = re.compile(r"\..+\.\d+(\.[0-9a-f]{8})?\.tmp")
MOST_NAMED = 8
LOCK_TIMEOUT_SECONDS = 3.0  # the ranks of a killed launcher may outlive it by moments

# Held by this process, in which a script may be called several times in turn.
_owned: "weakref.WeakValueDictionary[Path, FileLock]" = weakref.WeakValueDictionary()


class RunFolder:
    """Paths within ``--output_dir``."""

    def __init__(self, path: str | Path) -> None:
        self.path = named_path(path)
        self.log = self.path / "log"
        self.tokenizer = self.log / "tokenizer_info.json"
        self.results = self.path / "results"
        self.checkpoints = self.path / "ckpt"
        self.restore = self.path / "restore.pt"
        self.backup = self.path / "restore_backup.pt"
        self.resumed_from: Path | None = None  # a restore point
        self._lock: FileLock | None = None

    def claim(self) -> None:
        """Check that the run can be resumed and written, and lock the folder for this process.

        Raises:
            OSError: a file or folder cannot be written.
            UserError: as :func:`check_restore_points`, or another process trains here.
        """
        check_restore_points(self)  # before a file is written
        log = ("log.txt", "metrics.jsonl", "hps.json", "model_config.json", "git_info.json")
        check_output(self.restore, self.backup, *(self.log / name for name in log))
        check_output(self.checkpoint(0), self.results / "results.json")
        key = self.path.resolve()
        self._lock = _owned.get(key)
        if self._lock is not None:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(LOCK_TIMEOUT_SECONDS)
        except HeldError as holder:
            raise UserError(
                f"another training runs in {self.path} ({holder}): wait for it or end it, or "
                "choose another --output_dir"
            ) from None
        self._lock = _owned[key] = lock

    def release(self) -> None:
        """Unlock the folder."""
        if self._lock is not None:
            _owned.pop(self.path.resolve(), None)
            self._lock.release()
            self._lock = None

    @property
    def restore_points(self) -> list[Path]:
        """Existing restore points, the latest first."""
        return [path for path in (self.restore, self.backup) if os.path.lexists(path)]

    def remove_leftovers(self) -> None:
        """Delete temporary files of killed processes."""
        for folder in (self.path, self.checkpoints, self.log, self.results):
            remove_leftovers(folder, LEFTOVER)

    def checkpoint(self, step: int | str) -> Path:
        """Return the file of the weights after ``step`` optimizer steps."""
        return self.checkpoints / f"model_step_{step}.pt"

    def find_checkpoint(self, step_or_file: str) -> Path:
        """Return the file of a step of this run, or a file, also by its name in the run's folder.

        ``4800`` and ``4800_final`` are the same weights: if only one exists, either name finds it.

        Raises:
            UserError: it does not exist; the message names the steps that do.
        """
        if step := STEP.fullmatch(step_or_file):
            number = int(step[1])
            paths = [self.checkpoint(number), self.checkpoint(f"{number}_final")]
            paths = paths[::-1] if step[2] else paths
        else:
            folders = (Path(), self.path, self.checkpoints)
            paths = [folder / step_or_file for folder in folders]
        for path in paths:
            try:
                if path.is_file():
                    return path
            except OSError:  # the name is too long for a file
                continue
        named = shorten(paths[0], 300)
        raise UserError(f"checkpoint {named} does not exist ({self._describe_checkpoints()})")

    def steps(self) -> list[tuple[int, str]]:
        """Return (4800, "4800_final") for every checkpoint of a step."""
        names = [path.stem.removeprefix("model_step_") for path in self._weights("model_step_*.pt")]
        return sorted((int(step[1]), step[0]) for step in map(STEP.fullmatch, names) if step)

    def _weights(self, pattern: str) -> list[Path]:
        return sorted(path for path in self.checkpoints.glob(pattern) if path.is_file())

    def _describe_checkpoints(self) -> str:
        steps = self.steps()
        named = {self.checkpoint(name).name for _, name in steps}
        others = [path.name for path in self._weights("[!.]*.pt") if path.name not in named]
        names = ", ".join(name for _, name in steps)
        found = f"the run has steps {names}" if steps else "the run has no step"
        if not others:
            return found
        more = f" and {len(others) - MOST_NAMED} more" if len(others) > MOST_NAMED else ""
        return f"{found}; also in ckpt/: {', '.join(others[:MOST_NAMED])}{more}"


def save_tensors(path: Path, value: Any) -> None:
    """Save like ``torch.save``, but atomically."""
    with atomic_write(path) as temporary:
        torch.save(value, temporary)


def random_states() -> dict[str, Any]:
    """Return the state of every random generator of this process."""
    version, keys, gauss = random.getstate()
    mersenne = np.random.get_state(legacy=False)
    key, position = mersenne["state"]["key"].tolist(), mersenne["state"]["pos"]
    return {
        "python": [version, list(keys), gauss],
        "numpy": {**mersenne, "state": {"key": key, "pos": position}},
        "torch": torch.get_rng_state(),
        # Of this rank's device only: every rank saves its own.
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Restore the states that :func:`random_states` returned."""
    version, keys, gauss = states["python"]
    random.setstate((version, tuple(keys), gauss))
    mersenne = states["numpy"]
    key = np.array(mersenne["state"]["key"], dtype=np.uint32)
    np.random.set_state({**mersenne, "state": {**mersenne["state"], "key": key}})
    torch.set_rng_state(states["torch"])
    _set_cuda_state(states["cuda"])


def _set_cuda_state(saved: Tensor | list[Tensor] | None) -> None:
    on_gpu = torch.cuda.is_available()
    if isinstance(saved, list):  # of every device of the host, in older restore points
        own = torch.cuda.current_device() if on_gpu else 0
        saved = saved[own] if own < len(saved) else None
    if on_gpu and saved is not None:
        torch.cuda.set_rng_state(saved)
    elif on_gpu or saved is not None:
        before, now = ("CPU", "GPU") if on_gpu else ("GPU", "CPU")
        LOGGER.warning(
            "the restore point holds the generator of a %s, this is a %s: dropout draws again",
            *(before, now),
        )


def save_restore_point(run: RunFolder, state: dict[str, Any]) -> None:
    """Write a restore point; the previous one becomes the backup."""
    with atomic_write(run.restore) as temporary:
        torch.save(state, temporary)
        # If the run was resumed from the backup, the restore point is damaged.
        if run.restore.exists() and run.resumed_from != run.backup:
            run.restore.replace(run.backup)
    run.resumed_from = None


def check_restore_points(run: RunFolder) -> None:
    """Check that a run can be resumed, before anything in its folder is changed.

    Raises:
        UserError: a restore point is another program's, or none is complete.
    """
    problems = [_read_point(path, mapped=True)[1] for path in run.restore_points]
    if problems and all(problems):
        raise _damaged(run, problems)


def load_restore_point(run: RunFolder) -> dict[str, Any] | None:
    """Return the last complete restore point, on the CPU; None if the run has none.

    Raises:
        UserError: there are files, but none is complete, or it is another program's.
    """
    problems = []
    for path in run.restore_points:
        point, problem = _read_point(path)
        if problem:
            problems.append(problem)
            continue
        run.resumed_from = path
        if problems:
            LOGGER.warning("%s; resuming from %s, after step %d", *problems, path, point["step"])
        return point
    if problems:
        raise _damaged(run, problems)
    return None


def _read_point(path: Path, mapped: bool = False) -> tuple[dict[str, Any], str]:
    """Return a restore point and "", or the problem of a damaged file.

    Raises:
        UserError: it is something else.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder, no restore point: move it away")
    try:
        point = load_tensors(path, mapped)
    except UnreadableFileError as error:
        return {}, f"{path} {error}"
    keys = point.keys() if isinstance(point, dict) else set()
    if keys >= ORIGINAL_KEYS:
        raise UserError(
            f"{path} is a restore point of the original program, from which a run cannot be "
            f"resumed: choose another --output_dir; --checkpoint {path} takes its weights"
        )
    lacking = sorted(OWN_TYPES.keys() - keys)
    problem = f"it lacks {', '.join(lacking)}" if lacking else ""
    for key, kind in () if lacking else OWN_TYPES.items():
        if not isinstance(point[key], kind) or (key == "step" and point[key] < 0):
            shown = point[key] if isinstance(point[key], int) else type(point[key]).__name__
            problem = f"its {key} is {shown}"
    if problem:
        raise UserError(
            f"{path} is no restore point of this program ({problem}): move it away, or choose "
            "another --output_dir"
        )
    return point, ""


def _damaged(run: RunFolder, problems: list[str]) -> UserError:
    return UserError(
        f"no restore point of {run.path} can be read ({'; '.join(problems)}); move them away to "
        "start the run again, or choose another --output_dir"
    )
