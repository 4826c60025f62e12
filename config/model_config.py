"""The sizes of a HERO model, read from its JSON file (paper arXiv 2005.00200, section 3.1).

One file holds up to four blocks: ``f_config`` (cross-modal transformer), ``c_config`` (temporal
transformer), ``q_config`` (query encoder) and ``d_config`` (caption decoder).
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from config.options import FRACTION, NOT_NEGATIVE, POSITIVE
from config.values import convert
from utils.errors import UserError
from utils.files import read_json

_LOGGER = logging.getLogger("hero")

_MAX_VALUES = 10**11

# Of the numbers that need not be positive.
_RULES = {
    "num_hidden_layers": NOT_NEGATIVE,
    "hidden_dropout_prob": FRACTION,
    "attention_probs_dropout_prob": FRACTION,
}


@dataclass(frozen=True)
class BlockConfig:
    """Sizes of one transformer; the names are BERT's."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    vocab_size: int | None = None
    hidden_act: Literal["gelu"] = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12

    @property
    def num_words(self) -> int:
        """Rows of the word embedding.

        Raises:
            ValueError: the block has none.
        """
        if self.vocab_size is None:
            raise ValueError("vocab_size is missing (the rows of the word embedding)")
        return self.vocab_size

    @property
    def num_values(self) -> int:
        """Approximate number of weights."""
        layer = 4 * self.hidden_size + 2 * self.intermediate_size
        rows = (self.vocab_size or 0) + self.max_position_embeddings + self.type_vocab_size
        return self.hidden_size * (rows + self.num_hidden_layers * layer)

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            rule = _RULES.get(name, POSITIVE)
            if isinstance(value, int | float) and not rule.holds(value):
                raise ValueError(f"{name} = {value} must be {rule.text}")
        heads = self.num_attention_heads
        if self.hidden_size % heads:
            raise ValueError(
                f"hidden_size = {self.hidden_size} must be a multiple of {heads} heads"
            )


@dataclass(frozen=True)
class ModelConfig:
    """The blocks of one model; ``q_config`` is absent in captioning, ``d_config`` elsewhere."""

    f_config: BlockConfig
    c_config: BlockConfig
    q_config: BlockConfig | None = None
    d_config: BlockConfig | None = None

    @classmethod
    def from_json(cls, path: str | Path) -> "ModelConfig":
        """Read a model file (``config/hero_*.json``, or ``log/model_config.json`` of a run).

        Raises:
            UserError: the file is missing, no JSON, or a value is missing or unfit.
        """
        return cls.from_dict(read_json(path), source=str(path))

    @classmethod
    def from_dict(cls, blocks: Mapping[str, Any], source: str = "model config") -> "ModelConfig":
        """Build from parsed JSON; unknown keys are logged and ignored.

        Raises:
            UserError: a value is missing or unfit; ``source`` is named in the message.
        """
        known, unknown = _split_known(blocks, source)
        if unknown:
            _LOGGER.warning("%s: unknown keys are ignored: %s", source, ", ".join(unknown))
        try:
            config = convert(known, cls)
        except ValueError as error:
            raise UserError(f"{source}: {error}; see config/hero_finetune.json") from None
        config._check(source)
        return config

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return the JSON form, without absent blocks and vocabulary sizes."""
        return {
            name: {key: value for key, value in block.items() if value is not None}
            for name, block in asdict(self).items()
            if block is not None
        }

    def _check(self, source: str) -> None:
        if self.f_config.vocab_size is None:
            raise UserError(f"{source}: f_config needs vocab_size (the rows of the word embedding)")
        blocks = [block for block in vars(self).values() if block is not None]
        values = sum(block.num_values for block in blocks)
        if values > _MAX_VALUES:
            raise UserError(f"{source}: a model of {values:.1e} values; is a size mistyped?")
        sizes = {block.hidden_size for block in blocks}
        if len(sizes) > 1:
            raise UserError(
                f"{source}: all blocks need the same hidden_size, found {sorted(sizes)}"
            )


def _split_known(blocks: Any, source: str) -> tuple[dict[str, Any], list[str]]:
    """Return the known part of parsed JSON, and the names of unknown keys."""
    if not isinstance(blocks, Mapping):
        raise UserError(f"{source}: expected a JSON object with f_config and c_config")
    names, keys = ({field.name for field in fields(cls)} for cls in (ModelConfig, BlockConfig))
    known = {name: block for name, block in blocks.items() if name in names}
    unknown = [name for name in blocks if name not in names]
    for name, block in known.items():
        if isinstance(block, Mapping):
            known[name] = {key: value for key, value in block.items() if key in keys}
            unknown.extend(f"{name}.{key}" for key in block if key not in keys)
    return known, sorted(unknown)
