"""A run's folder and its restore points.

A restore point holds everything that the rest of a run depends on. Files are written beside and
renamed, and the point before stays as a backup: a kill at any instant leaves a loadable one.
"""

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.errors import UserError
from utils.files import atomic_write
from utils.tensor_files import UnreadableFileError, load_tensors


class RunFolder:
    """Paths within ``--output_dir``."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.log = self.path / "log"
        self.results = self.path / "results"
        self.restore = self.path / "restore.pt"
        self.backup = self.path / "restore_backup.pt"

    @property
    def can_restore(self) -> bool:
        """Whether there is a restore point."""
        return self.restore.exists() or self.backup.exists()

    def remove_leftovers(self) -> None:
        """Delete files that a killed process had begun to write."""
        for folder in (self.path, self.path / "ckpt"):
            for leftover in folder.glob(".*.tmp"):
                leftover.unlink()

    def checkpoint(self, step: int) -> Path:
        """Where the weights after ``step`` optimizer steps lie."""
        return self.path / "ckpt" / f"model_step_{step}.pt"

    def find_checkpoint(self, step_or_file: str) -> Path:
        """A step of this run, or any file of weights.

        Raises:
            UserError: it does not exist; the steps that do are named.
        """
        path = self.checkpoint(int(step_or_file)) if step_or_file.isdigit() else Path(step_or_file)
        if not path.is_file():
            steps = sorted(int(p.stem.rpartition("_")[2]) for p in self.path.glob("ckpt/*.pt"))
            there = f"the run has steps {', '.join(map(str, steps))}" if steps else "it has none"
            raise UserError(f"checkpoint {path} does not exist ({there})")
        return path


def save_tensors(path: Path, value: Any) -> None:
    """``torch.save``, whole or not at all."""
    with atomic_write(path) as temporary:
        torch.save(value, temporary)


def random_states() -> dict[str, Any]:
    """The state of every random generator of this process."""
    version, keys, gauss = random.getstate()
    mersenne = np.random.get_state(legacy=False)
    key, position = mersenne["state"]["key"].tolist(), mersenne["state"]["pos"]
    return {
        "python": [version, list(keys), gauss],
        "numpy": {**mersenne, "state": {"key": key, "pos": position}},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Put every generator where :func:`random_states` found it."""
    version, keys, gauss = states["python"]
    random.setstate((version, tuple(keys), gauss))
    mersenne = states["numpy"]
    key = np.array(mersenne["state"]["key"], dtype=np.uint32)
    np.random.set_state({**mersenne, "state": {**mersenne["state"], "key": key}})
    torch.set_rng_state(states["torch"])
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])


def save_restore_point(run: RunFolder, state: dict[str, Any]) -> None:
    """Write a restore point; the previous one becomes the backup."""
    with atomic_write(run.restore) as temporary:
        torch.save(state, temporary)
        if run.restore.exists():
            run.restore.replace(run.backup)


def load_restore_point(run: RunFolder) -> dict[str, Any] | None:
    """The last whole restore point, on the CPU, or None where the run has none.

    Raises:
        UserError: there are files, but none is whole.
    """
    damaged = []
    for path in (run.restore, run.backup):
        if not path.exists():
            continue
        try:
            return load_tensors(path)
        except UnreadableFileError:
            damaged.append(path)
    if damaged:
        raise UserError(
            f"no restore point of {run.path} can be read ({', '.join(map(str, damaged))} damaged); "
            "move them away to start the run anew, or choose another --output_dir"
        )
    return None
