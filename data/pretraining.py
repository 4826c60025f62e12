"""Pre-training objectives, and a data set of each corpus, split and objective of a run."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from config.pretraining import CorpusOptions, PretrainOptions
from config.values import nearest
from data.batch import ItemBatch, ObjectiveBatch
from data.fom import FomDataset, collate_fom
from data.loader import ItemKey, SizedDataset
from data.mfm import MfmDataset, collate_mfm
from data.mix import Part, part_seed
from data.mlm import MlmDataset, collate_mlm
from data.run_features import open_features
from data.stores.lmdb_io import FeatureDb, TextDb
from data.usable import Features, require_videos
from data.vcmr import collate_moments
from data.video import SubtitleSource
from data.video_pool import read_split
from data.vsm import VsmDataset
from utils.errors import UserError
from utils.logger import LOGGER

VALIDATION_SEED = 0  # the same masks in every validation of every run


@dataclass(frozen=True)
class Objective:
    """A pre-training objective."""

    dataset: Callable[..., SizedDataset]  # a data.video.VideoDataset with these options:
    options: tuple[str, ...]  # names of PretrainOptions that are passed to the data set
    collate: Callable[[Sequence[Any]], ItemBatch]
    method: str  # of model.pretrain.HeroForPretraining, for its batches
    masks_text: bool = False  # whether it masks tokens of the subtitles

    def batch(self, items: Sequence[Any]) -> ObjectiveBatch:
        """Pack items of the data set."""
        return ObjectiveBatch(self.collate(items), self.method)


OBJECTIVES = {
    "mlm": Objective(MlmDataset, ("mask_prob", "max_txt_len"), collate_mlm, "mlm", masks_text=True),
    "mfm-nce": Objective(MfmDataset, ("mask_prob",), collate_mfm, "mfm_nce"),
    "mffr": Objective(MfmDataset, ("mask_prob",), collate_mfm, "mffr"),
    "fom": Objective(FomDataset, (), collate_fom, "fom"),
    "vsm": Objective(VsmDataset, ("max_txt_len",), collate_moments, "vsm"),
}


def find_objective(name: str) -> Objective:
    """Return the objective that a corpus's ``tasks`` name; UserError, with a hint, if unknown."""
    if name not in OBJECTIVES:
        hint = nearest(name, OBJECTIVES) or f"there are {', '.join(OBJECTIVES)}"
        raise UserError(f"option targets: tasks: unknown objective {name!r}; {hint}")
    return OBJECTIVES[name]


class ObjectiveDataset:
    """Data set of an objective, ``name`` in :data:`OBJECTIVES`; each item comes with the name."""

    def __init__(
        self,
        name: str,
        vids: Sequence[str],
        source: SubtitleSource,
        options: PretrainOptions,
        seed: int,
    ) -> None:
        objective = find_objective(name)
        own = {option: getattr(options, option) for option in objective.options}
        self.name = name
        self.data = objective.dataset(vids, source, **own, seed=seed)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: ItemKey | int) -> tuple[str, Any]:
        return self.name, self.data[ItemKey.of(key)]


def collate_objective(items: Sequence[tuple[str, Any]]) -> ObjectiveBatch:
    """Pack items of one :class:`ObjectiveDataset`."""
    return OBJECTIVES[items[0][0]].batch([item for _, item in items])


class ShardedFeatures:
    """Several feature databases read as one (:class:`data.usable.Features`).

    Args:
        shards: the databases, of one version and interval. A video that is in several is read from
            the first of them.

    Raises:
        UserError: shards have features of different widths.
    """

    def __init__(self, shards: Sequence[FeatureDb]) -> None:
        self.shards = list(shards)
        self.interval = shards[0].interval
        self.max_clip_len = shards[0].max_clip_len
        self.path = ", ".join(str(shard.path) for shard in shards)
        self.width = shards[0].width
        self.id2nframe: dict[str, int] = {}
        self._shard_of: dict[str, FeatureDb] = {}
        for shard in shards:
            if shard.width != self.width:
                raise UserError(
                    f"{shard.path} has features {shard.width} values wide, {shards[0].path} "
                    f"{self.width}: shards need features of the same extractors"
                )
            twice = self.id2nframe.keys() & shard.id2nframe.keys()
            if twice:
                LOGGER.warning(
                    "%d videos of %s (such as %s) are in a shard before it, and read from there",
                    *(len(twice), shard.path, min(twice)),
                )
            self.id2nframe = shard.id2nframe | self.id2nframe
            self._shard_of = dict.fromkeys(shard.id2nframe, shard) | self._shard_of

    def __getitem__(self, vid: str) -> np.ndarray:
        """Return (T, D), as :class:`data.stores.lmdb_io.FeatureDb` does."""
        return self._shard_of[vid][vid]

    def __contains__(self, vid: str) -> bool:
        return vid in self._shard_of and vid in self._shard_of[vid]


@dataclass
class Corpus:
    """A corpus with its databases open."""

    options: CorpusOptions
    weight: float
    source: SubtitleSource

    def parts(self, train: bool) -> Iterator[tuple[str, str, float, list[str]]]:
        """Yield (loader name, objective, weight, videos) of the training or validation loaders."""
        for split in self.options.splits:
            vids = self._videos(split.train_idx if train else split.val_idx)
            for objective, ratio in zip(split.tasks, split.ratio, strict=True):
                name = f"{objective}_{self.options.name}_{split.name}"
                yield name, objective, self.weight * ratio, vids

    def _videos(self, files: str | list[str]) -> list[str]:
        """Return the videos of all files; one file per shard must list videos of that shard."""
        shards = getattr(self.source.features, "shards", [])
        per_shard = isinstance(files, list) and len(files) == len(shards)
        vids = []
        for number, file in enumerate([files] if isinstance(files, str) else files):
            listed = read_split(file)
            if per_shard and not self.source.only_available:
                require_videos(shards[number], listed, file)
            there = self.source.require(listed, file)
            if len(there) < len(listed):
                LOGGER.warning(
                    "%s: only %d of %d videos are available", file, len(there), len(listed)
                )
            vids.extend(there)
        return vids


def open_corpora(options: PretrainOptions, vocab_size: int | None = None) -> list[Corpus]:
    """Open the databases of all corpora; tokens are checked against ``vocab_size``, if given.

    Raises:
        UserError: one is missing or damaged, or features of two corpora differ in width.
    """
    corpora = []
    for corpus, weight in zip(options.corpora(), options.targets_ratio, strict=True):
        shards = [
            open_features(options, folder, options.interval_of(corpus))
            for folder in corpus.feature_folders
        ]
        features: Features = shards[0] if len(shards) == 1 else ShardedFeatures(shards)
        subtitles = TextDb(corpus.sub_txt_db, vocab_size)
        source = SubtitleSource(subtitles, features, options.sub_ctx_len, options.only_available)
        corpora.append(Corpus(corpus, weight, source))
    widths = {corpus.source.features.width for corpus in corpora}
    if len(widths) > 1:
        raise UserError(
            f"the corpora's features are {' and '.join(map(str, sorted(widths)))} values wide: one "
            "model needs features of the same extractors"
        )
    return corpora


def make_parts(corpora: Sequence[Corpus], options: PretrainOptions, train: bool) -> list[Part]:
    """Return one part per corpus, split and objective, named ``{objective}_{corpus}_{split}``.

    Raises:
        UserError: a list of videos is malformed or names videos that no database has, an objective
            is unknown, or a name not unique.
    """
    parts: dict[str, Part] = {}
    seed = options.seed if train else VALIDATION_SEED
    for corpus in corpora:
        for name, objective, weight, vids in corpus.parts(train):
            if name in parts:
                raise UserError(f"two loaders are called {name}; rename a corpus or a split")
            own = part_seed(seed, len(parts))
            dataset = ObjectiveDataset(objective, vids, corpus.source, options, seed=own)
            parts[name] = Part(name, dataset, weight)
    return list(parts.values())
