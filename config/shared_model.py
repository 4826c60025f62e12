"""An exported model: a folder, or a model of the hub, that a checkpoint option names.

The folder, made by scripts/export_model.py, has all that evaluation needs: weights, options, sizes
and tokenizer.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from config.storage import outside_container
from config.value import is_value
from utils.errors import UserError
from utils.files import read_json
from utils.hub import fetch_folder

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
MODEL_TYPE = "hero"
TOKENIZER_FILES = (
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)

_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_WEIGHT_ENDINGS = {".pt", ".pth", ".bin", ".ckpt", ".safetensors"}
# Options of a run that do not describe its model.
_OF_THE_RUN = {"output_dir", "storage", "checkpoint", "model_config"}


@dataclass(frozen=True)
class SharedModel:
    """An exported model.

    Attributes:
        name: as it was given.
        folder: local path.
        config: ``model_type``, ``task``, ``step``; of the run ``model_config``, ``tokenizer``,
            ``options``.
    """

    name: str
    folder: Path
    config: Mapping[str, Any]

    @classmethod
    def find(cls, name: str | None, run: str | Path = "") -> Self | None:
        """Return the model that a checkpoint option names; None for a step or file of ``run``.

        Raises:
            UserError: there is no such model.
        """
        if name is None:
            return None
        folder = Path(name)
        local = [folder, Path(run, name), Path(run, "ckpt", name)]
        try:
            is_folder, is_file = folder.is_dir(), any(path.is_file() for path in local)
        except OSError:  # too long a name
            return None
        if not is_folder:
            is_file |= folder.suffix in _WEIGHT_ENDINGS
            if is_file or not _HUB_NAME.fullmatch(name):
                return None
            folder = fetch_folder(
                name,
                (CONFIG, WEIGHTS, *TOKENIZER_FILES),
                f"checkpoint {name} is no step, file or folder here and no model that the hub gave",
                "give the path of one of these, or try again with a network",
            )
        elif not (folder / CONFIG).is_file():
            return None
        config = read_json(folder / CONFIG, dict[str, Any])
        if config.get("model_type") != MODEL_TYPE:
            raise UserError(
                f"{name} is a model folder, but not HERO's (its {CONFIG} does not say so); "
                "--load_partial_pretrained takes a RoBERTa"
            )
        parts = ("options", "model_config", "tokenizer")
        if not all(isinstance(config.get(part), dict) for part in parts):
            raise UserError(f"{folder / CONFIG} lacks {', '.join(parts)}; export it again")
        return cls(name, folder, config)

    @property
    def weights(self) -> Path:
        """Its file of weights."""
        return self.folder / WEIGHTS

    @property
    def toker(self) -> str | None:
        """Folder of its tokenizer, if it has one."""
        return str(self.folder) if has_tokenizer(self.folder) else None


def has_tokenizer(folder: Path) -> bool:
    """Return whether a folder has a tokenizer's files."""
    vocabulary, merges, fast = ((folder / name).is_file() for name in TOKENIZER_FILES[:3])
    return fast or (vocabulary and merges)


def shared_options(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's saved options without paths of one machine.

    :func:`config.value.is_value` has the same answer for both.
    """
    shared = {
        name: value
        for name, value in saved.items()
        if name not in _OF_THE_RUN and not outside_container(value)
    }
    if is_value(saved) and not is_value(shared):
        shared["no_fp16"] = saved.get("fp16") is False
    return shared
