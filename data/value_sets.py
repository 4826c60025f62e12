"""VALUE's data sets, opened to train or to validate on, over one corpus of videos or several."""

from collections import Counter
from collections.abc import Callable, Sequence
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
    """The databases of a run's lists; videos are opened once per corpus and channel.

    Args:
        options: of the run.
        vocab_size: of its model.
    """

    def __init__(self, options: ValueOptions, vocab_size: int) -> None:
        self.options, self.vocab_size = options, vocab_size
        self._videos: dict[tuple, VideoData] = {}

    def texts(self, path: str) -> TextDb:
        """Open a text database."""
        return TextDb(path, self.vocab_size)

    def videos(self, entry: DataSet, texts: TextDb) -> VideoData:
        """Return the videos of an entry, one of whose databases is ``texts``.

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
    """An entry of the lists with its items; each comes with the set."""

    label: str  # prefix of its losses
    entry: DataSet
    texts: TextDb  # one of its databases of texts
    dataset: SizedDataset
    collate: Callable[[Sequence[Any]], ItemBatch]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: ItemKey) -> tuple["OpenSet", Any]:
        return self, self.dataset[key]

    def part(self) -> Part:
        """Return it as a part of a mix."""
        return Part(self.label, self, self.entry.ratio, self.entry.batch_size)


def collate_set(items: Sequence[tuple[OpenSet, Any]]) -> SetBatch:
    """Pack items of one set."""
    owner = items[0][0]
    batch = owner.collate([item for _, item in items])
    return SetBatch(batch, owner.label, owner.entry.kind)


def labels(entries: Sequence[DataSet]) -> dict[str, str]:
    """Return {entry's name: label in metrics}: its data set, or its name if that is not unique."""
    count = Counter(entry.data_set for entry in entries)
    return {
        entry.name: entry.data_set if count[entry.data_set] == 1 else entry.name
        for entry in entries
    }


def open_training_sets(databases: Databases) -> list[OpenSet]:
    """Open the sets to train on.

    Raises:
        UserError: a database is missing or damaged, or has nothing to train on.
    """
    entries = databases.options.train_datasets
    if both := databases.options.validated_captions:
        LOGGER.warning(
            "captions are learnt from %s, whose queries are validated too, as in the published "
            "mixes: --keep_validation_apart leaves it out",
            ", ".join(both),
        )
    names = labels(entries)
    opened = [_open_set(databases, entry, names[entry.name]) for entry in entries]
    for data in opened:
        LOGGER.info("%s: %d items to train on", data.entry.name, len(data))
    return opened


def _open_set(databases: Databases, entry: DataSet, label: str) -> OpenSet:
    options, longest = databases.options, databases.options.max_txt_len
    if entry.kind is Kind.CAPTIONS:
        texts = caption_texts(entry.caption_dbs[0], databases.vocab_size)
        source = databases.videos(entry, texts).source
        captions = open_captions(entry.caption_dbs, source, databases.vocab_size, longest)
        return OpenSet(label, entry, texts, captions, captions.collate)
    if entry.kind in (Kind.QUESTIONS, Kind.STATEMENTS):
        judged = open_judged(databases, entry, training=True)
        return OpenSet(label, entry, judged.db, judged, judged.collate)
    texts = databases.texts(entry.given("query_txt_db"))
    source = databases.videos(entry, texts).source
    moments = MomentDataset(texts, source, longest, seed=options.seed)
    return OpenSet(label, entry, texts, moments, collate_moments)


def open_judged(databases: Databases, entry: DataSet, training: bool) -> CandidateDataset:
    """Open the questions or statements of an entry; in ``training`` without long texts, and items
    must have labels. UserError as for :func:`open_training_sets`."""
    texts = databases.texts(entry.given("query_txt_db"))
    source = databases.videos(entry, texts).source
    longest = databases.options.max_txt_len if training else -1
    if entry.kind is Kind.STATEMENTS:
        return SingleStatementDataset(texts, source, longest, training)
    return question_dataset(entry.data_set)(texts, source, longest, training)
