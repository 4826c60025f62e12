"""Image–text models of ``transformers``: CLIP (arXiv 2103.00020), SigLIP (arXiv 2303.15343).

Frames and sentences are embedded in one space and compared by their cosine. Pictures go through
the model's own image processor: CLIP's crops the centre square, SigLIP's resizes to a square.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import torch
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer, CLIPConfig

from model.extractors.extractor import PublishedExtractor
from model.extractors.weights import file_sha256
from utils.errors import UserError
from utils.hub import fetch_folder

if TYPE_CHECKING:
    from transformers import CLIPModel, CLIPTextConfig
    from transformers.modeling_outputs import BaseModelOutputWithPooling

SAFE_WEIGHTS = "model*.safetensors"
OLD_WEIGHTS = "pytorch_model*.bin"
_DESCRIPTION = ("*.json", "*.txt", "*.model")  # sizes, preprocessing, tokenizer
_ADVICE = (
    "download one on a machine with a network (hf download openai/clip-vit-base-patch32 "
    "--local-dir clip) and give the path of its folder"
)


class ClipFeatures(PublishedExtractor):
    """Features of pictures, and vectors of sentences in the same space: CLIP, SigLIP and the like.

    Args:
        network: the model.
        processor: of its pictures.
        folder: of its files; None: it is untrained.

    Attributes:
        width: D, of the shared space.
    """

    source = "https://huggingface.co/openai/clip-vit-base-patch32"
    frame_times = (0.5,)  # of a feature's window: its centre
    whole_pictures = True

    def __init__(
        self, network: CLIPModel, processor: Callable[..., Any], folder: Path | None = None
    ) -> None:
        super().__init__()
        self.network, self._processor, self._folder = network, processor, folder
        self._tokenizer = None
        self.title: str = network.config.model_type
        # CLIP projects to a width of its own, SigLIP to its text model's.
        texts = _text_config(network)
        of_texts: int = getattr(texts, "projection_size", texts.hidden_size)
        self.width = getattr(network.config, "projection_dim", None) or of_texts

    @classmethod
    def load(cls, name: str | None) -> Self:
        """Load a model of the hub or of a folder; None: CLIP ViT-B/32 with random weights.

        Raises:
            UserError: there is none, it cannot be read, or is of another kind.
        """
        if name is None:
            from transformers import CLIPImageProcessor

            return cls(AutoModel.from_config(CLIPConfig()), CLIPImageProcessor())
        folder = find_model(name)
        try:
            config = AutoConfig.from_pretrained(folder)
            network, loaded = AutoModel.from_pretrained(
                folder, dtype=torch.float32, output_loading_info=True
            )
            processor = AutoImageProcessor.from_pretrained(folder)
        except Exception as error:  # of any type, from transformers and safetensors
            raise UserError(f"{name} cannot be used ({_first_line(error)}); {_ADVICE}") from error
        if not (hasattr(network, "get_image_features") and hasattr(network, "get_text_features")):
            raise UserError(f"{name} is no image–text model but a {config.model_type}; {_ADVICE}")
        if missing := sorted(loaded["missing_keys"]):
            raise UserError(
                f"{name} lacks {missing[0]} (one of {len(missing)} weights): it is damaged, or "
                f"another model; {_ADVICE}"
            )
        return cls(network.eval(), processor, folder)

    @cached_property
    def sha256(self) -> str | None:
        """SHA-256 of the file of weights, or of several together; None if untrained."""
        if self._folder is None:
            return None
        first, *others = (file_sha256(path) for path in _weights(self._folder))
        return hashlib.sha256("".join([first, *others]).encode()).hexdigest() if others else first

    @property
    def stamp(self) -> str:
        """Sizes and times of the files of weights, which differ when these change."""
        stats = [path.stat() for path in _weights(self._folder)] if self._folder else []
        return " ".join(f"{stat.st_size} {stat.st_mtime_ns}" for stat in stats)

    @property
    def most_tokens(self) -> int:
        """Largest number of tokens of a sentence."""
        return _text_config(self.network).max_position_embeddings

    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, width) of pictures (B, 1, height, width, 3) uint8, RGB."""
        pictures, weight = list(images[:, 0].cpu().numpy()), next(self.network.parameters())
        inputs = self._processor(images=pictures, return_tensors="pt")
        inputs = inputs.to(weight.device, weight.dtype)
        return _pooled(self.network.get_image_features(**inputs))

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Return the vectors (N, width) of sentences, truncated to ``most_tokens``.

        Raises:
            UserError: the model's folder has no tokenizer.
        """
        tokenizer = self._open_tokenizer()
        # SigLIP was trained on sentences padded to the maximum.
        padding = "max_length" if self.title.startswith("siglip") else True
        tokens = tokenizer(
            list(texts),
            padding=padding,
            truncation=True,
            max_length=self.most_tokens,
            return_tensors="pt",
        )
        tokens = tokens.to(next(self.network.parameters()).device)
        return _pooled(self.network.get_text_features(**tokens))

    def _open_tokenizer(self):
        if self._tokenizer is None:
            try:
                self._tokenizer = AutoTokenizer.from_pretrained(self._folder)
            except Exception as error:  # of any type, as above
                raise UserError(
                    f"the tokenizer in {self._folder} cannot be read ({_first_line(error)})"
                ) from error
        return self._tokenizer


def find_model(name: str) -> Path:
    """Return the folder of a model, downloaded from the hub if the name is no folder.

    Raises:
        UserError: there is none.
    """
    folder = Path(name)
    if not folder.is_dir():
        problem = (
            f"the image–text model {name!r} is no local folder and cannot be fetched from the hub"
        )
        for weights in (SAFE_WEIGHTS, OLD_WEIGHTS):  # the second only without the first
            folder = fetch_folder(name, (*_DESCRIPTION, weights), problem, _ADVICE)
            if any(folder.glob(weights)):
                break
    if not _weights(folder):
        raise UserError(f"{name} holds no weights ({SAFE_WEIGHTS} or {OLD_WEIGHTS}); {_ADVICE}")
    return folder


def _weights(folder: Path) -> list[Path]:
    return sorted(folder.glob(SAFE_WEIGHTS)) or sorted(folder.glob(OLD_WEIGHTS))


def _text_config(network: CLIPModel) -> CLIPTextConfig:
    return cast("CLIPTextConfig", network.config.text_config)


def _pooled(output: Tensor | BaseModelOutputWithPooling) -> Tensor:
    """Return the vectors, which transformers ≥ 5 wraps."""
    return output if isinstance(output, Tensor) else cast("Tensor", output.pooler_output)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:300]
