"""VALUE's data sets, opened to train or to validate on, over one corpus of videos or several."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from config.groups import Kind
from config.value import DataSet, ValueOptions
from data.batch import ItemBatch, SetBatch
from data.candidates import CandidateDataset
from data.loader import ItemKey, SizedDataset
from data.mix import Part
from data.sources import VideoData, open_videos
from data.stores.lmdb_io import FeatureDb, TextDb
from data.tvc import caption_texts, open_captions
from data.vcmr import MomentDataset, collate_moments
from data.videoQA import question_dataset
from data.violin import SingleStatementDataset
from utils.errors import UserError
from utils.logger import LOGGER


class Databases:
    """The databases of a run's lists. Videos are opened once for a corpus and channel.

    Args:
        options: of the run.
        vocab_size: of its model.
    """

    def __init__(self, options: ValueOptions, vocab_size: int) -> None:
        self.options, self.vocab_size = options, vocab_size
        self._videos: dict[tuple, VideoData] = {}

    def texts(self, path: str) -> TextDb:
        """A text database."""
        return TextDb(path, self.vocab_size)

    def videos(self, entry: DataSet, texts: TextDb) -> VideoData:
        """The videos of an entry.

        Args:
            entry: of the lists.
            texts: one of its databases of texts.

        Raises:
            UserError: a database is missing or damaged, or its features have another width than
                those of the other entries.
        """
        key = entry.vfeat_db, entry.sub_txt_db, entry.channel
        if key not in self._videos:
            opened = open_videos(self.options.of(entry), texts, entry.channel)
            for other in self.features[:1]:
                if other.width != opened.features.width:
                    raise UserError(
                        f"the features of {other.path} are {other.width} values wide, those of "
                        f"{opened.features.path} {opened.features.width}: one model needs features "
                        "of the same extractors"
                    )
            self._videos[key] = opened
        return self._videos[key]

    @property
    def features(self) -> list[FeatureDb]:
        """All feature databases that are open."""
        return [videos.features for videos in self._videos.values()]


@dataclass
class OpenSet:
    """An entry of the lists with its items, which know the set that they are of.

    Attributes:
        label: what its losses are called after.
        entry: of the lists.
        texts: a database that its texts are from.
        dataset: its items.
        collate: items → batch.
    """

    label: str
    entry: DataSet
    texts: TextDb
    dataset: SizedDataset
    collate: Callable[[Sequence[Any]], ItemBatch]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: ItemKey) -> tuple["OpenSet", Any]:
        return self, self.dataset[key]

    def part(self) -> Part:
        """Its part in a mix."""
        return Part(self.label, self, self.entry.ratio, self.entry.batch_size)


def collate_set(items: Sequence[tuple[OpenSet, Any]]) -> SetBatch:
    """Pack items of one set."""
    owner = items[0][0]
    batch = owner.collate([item for _, item in items])
    return SetBatch(owner.label, owner.entry.kind, batch)


def labels(entries: Iterable[DataSet]) -> dict[str, str]:
    """Entry's name → what metrics call it: the data set, or its name where another has that."""
    entries = list(entries)
    count = Counter(entry.data_set for entry in entries)
    return {
        entry.name: entry.data_set if count[entry.data_set] == 1 else entry.name
        for entry in entries
    }


def open_training_sets(databases: Databases) -> list[OpenSet]:
    """The sets to train on.

    Raises:
        UserError: a database is missing or damaged, or has nothing to learn from.
    """
    entries = databases.options.train_datasets
    if both := databases.options.validated_captions:
        LOGGER.warning(
            "captions are learnt from %s, whose queries are validated too, as in the published "
            "mixes: --keep_validation_apart leaves it out",
            ", ".join(both),
        )
    names = labels(entries)
    opened = []
    for entry in entries:
        texts, dataset, collate = open_items(databases, entry, training=True)
        opened.append(OpenSet(names[entry.name], entry, texts, dataset, collate))
        LOGGER.info("%s: %d items to train on", entry.name, len(dataset))
    return opened


def open_items(
    databases: Databases, entry: DataSet, training: bool
) -> tuple[TextDb, SizedDataset, Callable[[Sequence[Any]], ItemBatch]]:
    """A database of an entry's texts, its items, and what makes a batch of them.

    Args:
        databases: of the run.
        entry: of its lists.
        training: leave out long texts; items must say what is right.

    Raises:
        UserError: as :func:`open_training_sets`.
    """
    options = databases.options
    longest = options.max_txt_len if training else -1
    if entry.kind is Kind.CAPTIONS:
        return _open_captions(databases, entry)
    if entry.kind in (Kind.QUESTIONS, Kind.STATEMENTS):
        judged = open_judged(databases, entry, training)
        return judged.db, judged, judged.collate
    texts = databases.texts(entry.given("query_txt_db"))
    source = databases.videos(entry, texts).source
    return texts, MomentDataset(texts, source, longest, seed=options.seed), collate_moments


def open_judged(databases: Databases, entry: DataSet, training: bool) -> CandidateDataset:
    """The questions or statements of an entry; arguments and errors as of :func:`open_items`."""
    texts = databases.texts(entry.given("query_txt_db"))
    source = databases.videos(entry, texts).source
    longest = databases.options.max_txt_len if training else -1
    if entry.kind is Kind.STATEMENTS:
        return SingleStatementDataset(texts, source, longest, training)
    return question_dataset(entry.data_set)(texts, source, longest, training)


def _open_captions(
    databases: Databases, entry: DataSet
) -> tuple[TextDb, SizedDataset, Callable[[Sequence[Any]], ItemBatch]]:
    texts = caption_texts(entry.caption_dbs[0], databases.vocab_size)
    source = databases.videos(entry, texts).source
    longest = databases.options.max_txt_len
    dataset = open_captions(entry.caption_dbs, source, databases.vocab_size, longest)
    return texts, dataset, dataset.collate
