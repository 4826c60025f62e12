"""The recorded inputs of pre-training, and its model."""

from dataclasses import dataclass

import numpy as np

from config.model_config import ModelConfig
from data.fom import FomItem
from data.mfm import MfmItem
from data.mlm import MlmItem
from data.vcmr import MomentItem
from data.video import Subtitle, VideoItem
from model.layers import set_dropout
from model.pretrain import HeroForPretraining
from model.ranking_loss import RankingLoss
from model.vcmr import MomentSchedule
from tests.support.recorded import DEVICE, load_recorded, recorded_source


@dataclass
class Inputs:
    """The recorded inputs, and where their videos come from."""

    given: dict
    world: object

    def videos(self, kind: str | None = None) -> list[VideoItem]:
        block = self.given[kind] if kind else self.given
        source = self.source(kind)
        return [source(vid) for vid in block["vids"]]

    def source(self, kind: str | None = None):
        block = self.given[kind] if kind else self.given
        return recorded_source(self.world, block["max_clip_len"], block.get("sub_ctx_len", 0))

    def mlm(self, kind: str | None = None) -> list[MlmItem]:
        texts = self.given[kind]["items"] if kind else self.given["mlm"]
        return [
            recorded_mlm_item(video, entries)
            for video, entries in zip(self.videos(kind), texts, strict=True)
        ]

    def mfm(self) -> list[MfmItem]:
        masks = [np.array(mask, dtype=bool) for mask in self.given["mfm"]]
        videos = self.videos()
        return [MfmItem(video, mask) for video, mask in zip(videos, masks)]

    def fom(self) -> list[FomItem]:
        items = []
        for video, entry in zip(self.videos(), self.given["fom"], strict=True):
            slots = np.flatnonzero(np.array(entry["target"]) >= 0)
            chosen = np.sort(np.array(entry["target"])[slots])
            item = FomItem(video, np.array(entry["order"]), chosen)
            assert set(item.order[chosen]) == set(slots)
            items.append(item)
        return items

    def vsm(self, kind: str | None = None) -> list[MomentItem]:
        entries = self.given[kind]["items"] if kind else self.given["vsm"]
        items = []
        for video, entry in zip(self.videos(kind), entries, strict=True):
            assert len(video.subtitles) == len(entry["context_ids"])
            for subtitle, tokens in zip(video.subtitles, entry["context_ids"]):
                subtitle.tokens = tokens
            queries = [query["input_ids"] for query in entry["queries"]]
            targets = [tuple(query["target"]) for query in entry["queries"]]
            items.append(MomentItem(video, queries, targets, [video.vid] * len(queries)))
        return items


def recorded_mlm_item(video: VideoItem, entries: list[dict]) -> MlmItem:
    """The video with the recorded texts for its subtitles that have one."""
    spoken = [subtitle for subtitle in video.subtitles if len(subtitle.tokens) > 1]
    subtitles, labels = [], []
    for subtitle, entry in zip(spoken, entries, strict=True):
        subtitles.append(Subtitle(entry["input_ids"], subtitle.frames))
        labels.append({place: t for place, t in enumerate(entry["labels"]) if t != -1})
    return MlmItem(VideoItem(video.vid, video.features, subtitles), labels)


def build(expected, schedule=None) -> HeroForPretraining:
    config = ModelConfig.from_json(expected / "model_finetune.json")
    schedule = schedule or MomentSchedule(ranking=RankingLoss("hinge", margin=0.1))
    model = HeroForPretraining(config, schedule=schedule)
    report = load_recorded(model, expected / "pretrained.pt")
    assert not (report.missing or report.new_heads or report.unexpected)
    set_dropout(model, 0.0)
    return model.to(DEVICE).train()
