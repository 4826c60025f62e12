"""Reading the recorded world of VALUE: its models, databases and videos."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from torch import nn

from config.groups import Channel
from config.model_config import ModelConfig
from data.sources import VideoData, open_videos
from data.stores.lmdb_io import TextDb
from model.layers import set_dropout
from tests.support.recorded import DEVICE, load_recorded

WEIGHTS = ("pretrained.pt", "head_qa.pt", "head_caption.pt")  # together, those of every model
WIDE = "clip-vit_slowfast"
WIDE_SIZE = 2816


def recorded_ids(recorded: Mapping[str, np.ndarray], kind: str) -> list[str]:
    """What comes after ``kind/`` in the keys; there is something."""
    ids = [key.removeprefix(f"{kind}/") for key in recorded if key.startswith(f"{kind}/")]
    ids = [id_ for id_ in ids if "/" not in id_]
    assert ids, f"nothing recorded under {kind}"
    return ids


class ValueWorld:
    """The world's databases and the models recorded on it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.expected, self.world = folder, folder / "expected", folder / "world"

    def texts(self, name: str) -> TextDb:
        """A query database by its name, without ``.db``."""
        return TextDb(self.world / "txt_db" / f"{name}.db")

    def annotation(self, name: str) -> Path:
        """A raw file by its name, without ``.jsonl``."""
        return self.world / "ann" / f"{name}.jsonl"

    def expected_json(self, name: str) -> Any:
        """A recorded JSON file."""
        return json.loads((self.expected / f"{name}.json").read_text())

    def videos(
        self,
        corpus: str,
        context: int = 0,
        channel: Channel = Channel.VIDEO_SUB,
        version: str = "resnet_slowfast",
        max_clip_len: int = 100,
    ) -> VideoData:
        """A corpus as a run reads it."""
        options = SimpleNamespace(
            vfeat_db=str(self.world / "video_db" / corpus),
            sub_txt_db=str(self.world / "txt_db" / f"{corpus}_subtitles.db"),
            vfeat_version=version,
            vfeat_interval=1.5,
            compressed_db=False,
            max_clip_len=max_clip_len,
            sub_ctx_len=context,
            only_available=False,
            run_folder=Path(),
        )
        return open_videos(options, TextDb(options.sub_txt_db), channel)

    def model(self, cls: type[nn.Module], size: int | None = None, **arguments: Any) -> nn.Module:
        """A recorded model, without dropout, in evaluation mode."""
        config = ModelConfig.from_json(self.expected / "model_finetune.json")
        wide = {} if size is None else {"feature_size": size}
        model = cls(config, **wide, **arguments)
        files = [self.expected / name for name in WEIGHTS]
        more = [] if size is None else [self.expected / f"pretrained_{size}.pt"]
        report = load_recorded(model, *files, *more)
        assert not (report.missing or report.new_heads or report.grown)
        set_dropout(model, 0.0)
        return model.eval().to(DEVICE)
