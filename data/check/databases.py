"""All databases that a run's options name, as far as they can be opened."""

from collections.abc import Callable, Collection, Container, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from config.groups import Channel, Kind, QueryDbOptions, TrainingOptions
from config.pretraining import CorpusOptions, PretrainOptions
from config.training import AnswerOptions, RetrievalOptions, TvcOptions
from config.value import DataSet, ValueOptions
from data.check.findings import CANNOT_OPEN, Finding, examine
from data.clips import captions_by_video, read_clip_lines
from data.run_features import channel_of, open_features
from data.stores.lmdb_io import FeatureDb, TextDb, feature_db_path
from data.stores.records import EventRecord, QueryRecord, QuestionRecord, StatementRecord
from data.video_indices import VIDEO_INDICES, split_parts
from data.video_pool import feature_name, named_videos, numbered_videos, query_videos, read_split
from utils.errors import UserError
from utils.names import CLIP_NAMES, get_name

Result = TypeVar("Result")
RecordType = type[QueryRecord] | type[QuestionRecord] | type[StatementRecord]
RECORD_TYPES: dict[Kind, RecordType] = {
    Kind.MOMENTS: QueryRecord,
    Kind.VIDEOS: QueryRecord,
    Kind.QUESTIONS: QuestionRecord,
    Kind.STATEMENTS: StatementRecord,
}


@dataclass(frozen=True)
class QuerySet:
    """Queries, questions or statements of a split."""

    db: TextDb
    kind: Kind
    split: str  # train, val, test…
    lengths: dict[str, Any]  # id2len.json
    videos: dict[str, str]  # query2video.json, names as text; empty where there is none
    record_type: RecordType

    @property
    def may_hide(self) -> bool:
        """Whether the split may lack videos, moments or answers."""
        return self.split.startswith("test")

    @property
    def searches(self) -> bool:
        """Whether its queries search a pool of videos."""
        return self.kind in (Kind.MOMENTS, Kind.VIDEOS)

    @property
    def scored(self) -> bool:
        """Whether predictions are scored with the lines of ``query_data.jsonl``."""
        return self.searches and bool(self.videos) and self.split != "train"


@dataclass(frozen=True)
class CaptionSet:
    """Captions of a split, and their clips."""

    path: Path  # the folder of both
    captions: TextDb  # cap.db
    clips: TextDb  # clip.db
    by_video: dict[str, list[str]]  # vid2caps.json


@dataclass(frozen=True)
class WantedVideos:
    """Videos that a database or list names."""

    by: str  # the database, list or pool
    vids: list[str]
    shard: FeatureDb | None = None  # that must have them; None: any
    asked_for: dict[str, str] | None = None  # of a pool to search: its queries' videos, by query


@dataclass
class Corpus:
    """Videos and the texts about them."""

    interval: float  # seconds per frame, an option
    max_clip_len: int  # frames that the run keeps of a video; −1: all
    reads_text: bool  # whether the run reads the subtitles' text
    masks_text: bool = False  # whether it masks some of it
    only_available: bool = False  # whether it leaves out missing videos
    features: list[FeatureDb] = field(default_factory=list)  # that could be opened; several: shards
    all_features: bool = False  # whether those are all
    subtitles: TextDb | None = None
    queries: list[QuerySet] = field(default_factory=list)
    captions: list[CaptionSet] = field(default_factory=list)
    wanted: list[WantedVideos] = field(default_factory=list)
    indexed: set[str] = field(default_factory=set)  # splits whose vid2dur_idx.json entries are read
    required: set[str] = field(default_factory=set)  # splits that vid2dur_idx.json must have

    @cached_property
    def id2nframe(self) -> dict[str, int]:
        """Frames of the videos of all feature databases."""
        # As data.pretraining.ShardedFeatures reads them: a video's first shard counts.
        shards = reversed(self.features)
        return {vid: frames for db in shards for vid, frames in db.id2nframe.items()}

    @cached_property
    def used(self) -> Collection[str] | None:
        """Videos that the run reads; None: unknown."""
        wanted = {vid for wanted in self.wanted for vid in wanted.vids}
        return self.available(wanted) or wanted or None

    def available(self, vids: Collection[str]) -> Collection[str]:
        """Return the videos of ``vids`` that the run does not leave out."""
        return {vid for vid in vids if vid in self} if self.only_available else vids

    def __contains__(self, vid: str) -> bool:
        """Return whether a video is available, as :class:`data.video.VideoSource` does."""
        shard = next((db for db in self.features if vid in db.id2nframe), None)
        has_features = shard is not None and shard.id2nframe[vid] > 0 and vid in shard
        subtitles = self.subtitles if self.reads_text else None
        return has_features and (subtitles is None or vid in subtitles)

    @cached_property
    def vid2len(self) -> dict[str, int]:
        """Frames of the subtitle database's videos; empty where it has no ``vid2len.json``."""
        if self.subtitles is None or not self.subtitles.has_side("vid2len.json"):
            return {}
        return self.subtitles.side("vid2len.json")

    def kept(self, frames: int) -> int:
        """Return how many of a video's frames the run keeps."""
        return frames if self.max_clip_len < 0 else min(frames, self.max_clip_len)


@dataclass
class RunData:
    """All databases of a run."""

    vocab_size: int  # of the model
    max_txt_len: int  # tokens of the longest text to train on; −1: any
    corpora: list[Corpus] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)  # of what was opened

    def open(self, where: object, opener: Callable[..., Result], *arguments: Any) -> Result | None:
        """Return ``opener(*arguments)``; None, and add a finding, if it raises UserError."""
        try:
            opened = opener(*arguments)
        except UserError as error:
            self.findings += examine(where, [CANNOT_OPEN], [CANNOT_OPEN("", str(error))])
            return None
        self.findings += examine(getattr(opened, "path", where), [CANNOT_OPEN], [])
        return opened


def _open_subtitles(path: str) -> TextDb:
    db = TextDb(path)
    for name in ("vid2len.json", "vid2dur_idx.json"):
        if db.has_side(name):
            db.side(name)  # raises where it is malformed
    return db


def _open_queries(
    path: str, kind: Kind, split: str, known: Container[str], record_type: RecordType
) -> QuerySet:
    db = TextDb(path)
    videos = query_videos(db, known)
    named_videos(db, known)  # raises where video_ids.json is malformed
    return QuerySet(db, kind, split, db.side("id2len.json"), videos, record_type)


def _open_captions(path: str, known: Container[str]) -> CaptionSet:
    captions, clips = (TextDb(Path(path, part)) for part in ("cap.db", "clip.db"))
    return CaptionSet(Path(path), captions, clips, captions_by_video(captions, known))


def open_databases(options: TrainingOptions, vocab_size: int) -> RunData:
    """Open all databases that can be opened, of the options of any training script."""
    data = RunData(vocab_size, options.max_txt_len)
    if isinstance(options, PretrainOptions):
        for chosen in options.corpora():
            _open_pretraining(data, options, chosen)
        return data
    if isinstance(options, ValueOptions):
        _open_lists(data, options)
        return data
    if not isinstance(options, RetrievalOptions | AnswerOptions | TvcOptions):
        raise TypeError(f"{type(options).__name__}: options of no training script")
    corpus = Corpus(
        options.vfeat_interval,
        options.max_clip_len,
        reads_text=channel_of(options.task) != Channel.VIDEO_ONLY,
        only_available=options.only_available,
    )
    data.corpora.append(corpus)
    _open_videos(data, corpus, options, [options.vfeat_db], options.sub_txt_db)
    if isinstance(options, TvcOptions):
        for path in dict.fromkeys((options.train_db, options.val_db)):
            _open_captions_of_clips(data, corpus, path)
        _open_clips(data, corpus, options.val_ref)
    else:
        _open_query_sets(data, corpus, options, options.KIND)
    return data


def _open_videos(
    data: RunData,
    corpus: Corpus,
    options: TrainingOptions,
    folders: list[str],
    subtitles: str | None,
) -> None:
    for folder in folders:
        path = feature_db_path(
            Path(folder), options.vfeat_version, corpus.interval, options.compressed_db
        )
        db = data.open(path, open_features, options, folder, corpus.interval)
        corpus.features += [db] if db is not None else []
    corpus.all_features = len(corpus.features) == len(folders)
    if subtitles:
        corpus.subtitles = data.open(subtitles, _open_subtitles, subtitles)


def _open_lists(data: RunData, options: ValueOptions) -> None:
    """Open all data sets of VALUE's lists; a corpus once for every channel that is read."""
    corpora: dict[tuple, Corpus] = {}
    opened = set()
    for entry in options.train_datasets + options.val_datasets:
        own = options.of(entry)
        key = entry.vfeat_db, entry.sub_txt_db, entry.channel
        if key not in corpora:
            reads_text = entry.channel != Channel.VIDEO_ONLY
            corpus = Corpus(
                own.vfeat_interval,
                own.max_clip_len,
                reads_text,
                only_available=own.only_available,
            )
            _open_videos(data, corpus, own, [own.vfeat_db], own.sub_txt_db)
            corpora[key] = corpus
            data.corpora.append(corpus)
        for path in (entry.query_txt_db, *entry.caption_dbs, entry.gt_anno):
            # Queries may also be captions to train on.
            known = (key, path, entry.kind)
            if path and known not in opened:
                opened.add(known)
                _open_listed(data, corpora[key], entry, path)


def _open_listed(data: RunData, corpus: Corpus, entry: DataSet, path: str) -> None:
    """Open a file of texts that an entry names."""
    if path == entry.gt_anno:
        _open_clips(data, corpus, path, whole_videos=entry.data_set != "tvc")
    elif entry.kind is not Kind.CAPTIONS:
        events = EventRecord if entry.data_set == "vlep" else None
        _open_query_set(data, corpus, path, entry.kind, entry.split, True, events)
    elif entry.data_set == "tvc":
        _open_captions_of_clips(data, corpus, path)
    else:
        _open_query_set(data, corpus, path, Kind.VIDEOS, "train")


def _open_query_sets(data: RunData, corpus: Corpus, options: QueryDbOptions, kind: Kind) -> None:
    split_of: dict[str, str] = {}  # the first of each path
    for split in ("train", "val", "test"):
        split_of.setdefault(getattr(options, f"{split}_query_txt_db"), split)
    for path, split in split_of.items():
        if path:
            _open_query_set(data, corpus, path, kind, split)


def _open_query_set(
    data: RunData,
    corpus: Corpus,
    path: str,
    kind: Kind,
    split: str,
    value: bool = False,
    record_type: RecordType | None = None,
) -> None:
    record_type = record_type or RECORD_TYPES[kind]
    queries = data.open(path, _open_queries, path, kind, split, corpus.id2nframe, record_type)
    if queries is None:
        return
    corpus.queries.append(queries)
    vids = list(dict.fromkeys(queries.videos.values()))
    corpus.wanted += [WantedVideos(path, vids)] if vids else []
    if queries.searches and split != "train":
        corpus.wanted += _pools(corpus, queries, value)


def _pools(corpus: Corpus, queries: QuerySet, value: bool) -> Iterator[WantedVideos]:
    """Yield the videos that a split's queries search, if the tables of videos are well-formed;
    ``value``: by VALUE's rules, those of the split in ``vid2dur_idx.json``."""
    own_indices = value or (queries.kind == Kind.MOMENTS and corpus.reads_text)
    if value:
        names = [queries.split]
    else:  # evaluation may call the test split by either name
        names = ["test", "test_public"] if queries.split == "test" else ["val"]
    if own_indices and corpus.subtitles is not None and corpus.subtitles.has_side(VIDEO_INDICES):
        indexed = corpus.subtitles.side(VIDEO_INDICES)
        names = [name for name in names if name in indexed] or names[:1]
        parts = (part for name in names for part in split_parts(indexed, name) or [name])
        corpus.indexed |= {"train", *parts}
        corpus.required |= {*names} if value else set()
    try:
        pools = [
            numbered_videos(
                name, queries.db, corpus.subtitles, corpus.id2nframe, own_indices, required=value
            )
            for name in names
        ]
    except UserError:
        return  # data.check.videos reports it
    vids = {vid: None for pool in pools for vid in pool.numbers}
    where = f"{pools[0].file} (videos to search for {queries.split})"
    yield WantedVideos(where, list(vids), asked_for=queries.videos)


def _open_captions_of_clips(data: RunData, corpus: Corpus, path: str) -> None:
    captions = data.open(path, _open_captions, path, corpus.id2nframe)
    if captions is not None:
        corpus.captions.append(captions)
        corpus.wanted.append(WantedVideos(path, list(captions.by_video)))


def _open_clips(data: RunData, corpus: Corpus, path: str, whole_videos: bool = False) -> None:
    lines = data.open(path, read_clip_lines, path, whole_videos)
    if lines is not None:
        vids = (get_name(line, *CLIP_NAMES.videos) for line in lines)
        known = (feature_name(vid, corpus.id2nframe) for vid in vids)
        corpus.wanted.append(WantedVideos(path, list(dict.fromkeys(known))))


def _open_pretraining(data: RunData, options: PretrainOptions, chosen: CorpusOptions) -> None:
    from data.pretraining import find_objective  # with PyTorch, which no other run needs here

    objectives = [find_objective(name) for split in chosen.splits for name in split.tasks]
    masks = any(objective.masks_text for objective in objectives)
    interval = options.interval_of(chosen)
    corpus = Corpus(interval, options.max_clip_len, True, masks, options.only_available)
    data.corpora.append(corpus)
    folders = chosen.feature_folders
    _open_videos(data, corpus, options, folders, chosen.sub_txt_db)
    sharded = corpus.all_features and len(folders) > 1
    for files in (files for split in chosen.splits for files in (split.train_idx, split.val_idx)):
        per_shard = sharded and isinstance(files, list) and len(files) == len(folders)
        for number, file in enumerate([files] if isinstance(files, str) else files):
            vids = data.open(file, read_split, file)
            shard = corpus.features[number] if per_shard else None
            corpus.wanted += [WantedVideos(file, vids, shard)] if vids is not None else []
