"""Messages, metrics, and the facts needed to reproduce a run."""

import json
import logging
import math
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from utils.errors import UserError
from utils.files import atomic_write, naming, write_json
from utils.processes import is_other_rank

LOGGER = logging.getLogger("hero")

_FORMAT = "%(asctime)s %(levelname)s %(message)s"
_REPOSITORY = Path(__file__).resolve().parents[1]


class _ConsoleHandler(logging.Handler):
    """Writes to stderr without breaking a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


class _FileHandler(logging.FileHandler):
    """Ends the run if the log cannot be written, instead of a traceback for every message."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 – logging's own name
        """Raise the current error with the file's name."""
        with naming(Path(self.baseFilename)):
            raise


class _EarlyHandler(_ConsoleHandler):
    """Shows messages before :func:`setup_logging`, on rank 0, and keeps them for the log file."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.kept: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        if not is_other_rank():
            super().emit(record)
            self.kept.append(record)


_EARLY = _EarlyHandler()
LOGGER.addHandler(_EARLY)


def setup_logging(is_main: bool, log_file: str | Path | None = None) -> None:
    """Send :data:`LOGGER`'s messages to the console, and append them to ``log_file`` if given.

    Ranks other than the main one log nothing. A further call replaces the handlers.
    """
    for handler in list(LOGGER.handlers):
        LOGGER.removeHandler(handler)
        handler.close()
    handlers: list[logging.Handler] = [logging.NullHandler()]
    if is_main:
        handlers = [_ConsoleHandler()]
        if log_file is not None:
            Path(log_file).parent.mkdir(parents=True, exist_ok=True)
            handlers.append(_FileHandler(log_file, encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(logging.Formatter(_FORMAT))
        LOGGER.addHandler(handler)
    if isinstance(handlers[-1], logging.FileHandler):
        for record in _EARLY.kept:
            handlers[-1].handle(record)
    _EARLY.kept.clear()
    LOGGER.setLevel(logging.INFO if is_main else logging.CRITICAL)


class MetricsWriter:
    """Appends metrics to ``metrics.jsonl`` and to TensorBoard events.

    A line is ``{"step": …, "name": …, "value": …}``. Lines of steps after ``start_step`` are
    dropped first, so that a resumed run leaves the same lines as an uninterrupted one.

    Args:
        log_dir: the run's ``log`` folder; made if absent.
        start_step: optimizer steps done: 0, or those of the restore point.
        revalidate: whether the validation of ``start_step`` is repeated.
    """

    def __init__(self, log_dir: str | Path, start_step: int = 0, revalidate: bool = False) -> None:
        # Imported here: it is slow, and most scripts that log do not need it.
        from torch.utils.tensorboard import SummaryWriter

        threading.excepthook = _show_unless_tensorboard
        path = Path(log_dir) / "metrics.jsonl"
        _drop_lines_after(path, start_step, revalidate)
        self._path = path
        self._lines = path.open("a", encoding="utf-8", buffering=1)
        self._events = SummaryWriter(str(log_dir), purge_step=start_step + 1)

    def write(self, step: int, values: Mapping[str, float | str]) -> None:
        """Write the metrics of one step; a number that is not finite becomes null."""
        with naming(self._path):
            for name, value in values.items():
                kept: float | str | None = value
                if isinstance(value, str):
                    self._events.add_text(name, value, step)
                else:
                    self._events.add_scalar(name, float(value), step)
                    kept = float(value) if math.isfinite(value) else None
                self._lines.write(json.dumps({"step": step, "name": name, "value": kept}) + "\n")
            self._events.flush()

    def close(self) -> None:
        """Close the files."""
        with naming(self._path):
            self._lines.close()
            self._events.close()


def _show_unless_tensorboard(args: threading.ExceptHookArgs) -> None:
    """Hide an error of TensorBoard's thread, which the next call of its writer raises."""
    if not type(args.thread).__module__.startswith("tensorboard"):
        threading.__excepthook__(args)


def _drop_lines_after(path: Path, step: int, revalidate: bool) -> None:
    """Keep the complete lines of steps up to ``step``; a kill may have cut the last line.

    With ``revalidate``, drop the lines of that step's validation too.

    Raises:
        UserError: a line but the last is not a metric.
    """
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    complete, _, _ = text.rpartition("\n")
    kept = []
    for number, line in enumerate(complete.splitlines(), start=1):
        try:
            metric = json.loads(line)
            validated = revalidate and metric["name"].startswith("valid/")
            if metric["step"] < step + (not validated):
                kept.append(line + "\n")
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
            raise UserError(f"{path}:{number} is not a metric; move the file away") from None
    with atomic_write(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")


def save_run_info(
    output_dir: str | Path, options: Mapping[str, Any], model_config: Mapping[str, Any]
) -> None:
    """Write ``hps.json``, ``model_config.json`` and ``git_info.json`` to the run's log folder."""
    log = Path(output_dir) / "log"
    write_json(log / "hps.json", options, indent=2)
    write_json(log / "model_config.json", model_config, indent=2)
    write_json(log / "git_info.json", git_info(), indent=2)


def git_info(folder: str | Path = _REPOSITORY) -> dict[str, str | bool | None]:
    """Return commit, branch, and whether tracked files were changed; None each outside git."""
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {
        "commit": _git(folder, "rev-parse", "HEAD"),
        "branch": _git(folder, "rev-parse", "--abbrev-ref", "HEAD"),
        "dirty": None if changes is None else bool(changes),
    }


def _git(folder: str | Path, *command: str) -> str | None:
    # safe.directory: in a container the mounted source usually belongs to another user.
    words = ["git", "-c", "safe.directory=*", "-C", str(folder), *command]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
