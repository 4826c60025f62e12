"""The data sets of the corpus: their videos, splits, lengths and names."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from scripts.demo_corpus.features import FeatureJob
from scripts.demo_corpus.scenes import SceneMaker, Span, Video
from scripts.demo_corpus.sentences import speak
from scripts.demo_corpus.words import stable_hash

_SHARES = {"train": 8, "val": 3, "dev": 3, "test": 1, "test_public": 1, "test_private": 1}
_SHOWS = ("bay", "hill", "port")
_ID_LETTERS = np.array(list("ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz0123456789_"))
_SILENT = 0.05  # share of videos without subtitles
CLIP_SECONDS = 60.0  # the clips that How2's and HowTo100M's videos are cut into
LONG_VIDEOS = "ht"
OF_VALUE = ("yc2", "vatex", "vlep")  # feature files are in folders as VALUE's
_SEGMENTS = 4  # of a source video of YC2
SHARDS = 2  # feature databases of the long videos


@dataclass(frozen=True)
class Dataset:
    """The videos of one data set, by split; names are unique."""

    name: str
    interval: float  # seconds per frame
    splits: dict[str, list[Video]]

    @property
    def videos(self) -> list[Video]:
        """The videos of all splits."""
        return [video for videos in self.splits.values() for video in videos]

    def frames(self, video: Video) -> int:
        """Return T, the number of frames of a video."""
        return math.ceil(video.duration / self.interval)


@dataclass(frozen=True)
class _Kind:
    """How a data set is made: its splits, frame rate, names and scene lengths."""

    interval: float
    splits: tuple[str, ...]
    name: Callable[[int, np.random.Generator], str]
    lengths: Callable[[np.random.Generator], list[float]]
    train_factor: float = 1.0  # of the number of training videos
    shares: Mapping[str, int] = field(default_factory=dict)  # of splits that differ from _SHARES


def _clip_of_show(show: str, n: int) -> str:
    return f"{show}_s{n // 100 + 1:02d}e{n // 10 % 10 + 1:02d}_seg02_clip_{n % 10:02d}"


def _tv_name(number: int, rng: np.random.Generator) -> str:
    return _clip_of_show(_SHOWS[number % len(_SHOWS)], number // len(_SHOWS))


def _flickr_name(number: int, rng: np.random.Generator) -> str:
    return f"{rng.integers(10**7, 10**8)}@N00_{number:04d}"


def _youtube_id(rng: np.random.Generator) -> str:
    return "".join(rng.choice(_ID_LETTERS, 11))


def _yc2_name(number: int, _rng: np.random.Generator) -> str:
    """Segments of one source video share its name."""
    source, segment = divmod(number, _SEGMENTS)
    return f"{_youtube_id(np.random.default_rng([source, stable_hash('yc2')]))}_{segment}"


def _vatex_name(_number: int, rng: np.random.Generator) -> str:
    start = rng.integers(300)
    return f"{_youtube_id(rng)}_{start:06d}_{start + 10:06d}"


def _scenes(
    shortest: float, longest: float, fewest: int, most: int
) -> Callable[[np.random.Generator], list[float]]:
    """Return what draws the lengths of a video's scenes, in seconds."""
    return lambda rng: list(rng.uniform(shortest, longest, rng.integers(fewest, most + 1)))


def _didemo_lengths(rng: np.random.Generator) -> list[float]:
    """Half a minute in units of five seconds: some scenes take one unit, some two."""
    units = np.ones(rng.integers(3, 6), dtype=int)
    while units.sum() < 6:
        units[rng.choice(np.flatnonzero(units == 1))] += 1
    return list(5.0 * units)


def _how2_lengths(rng: np.random.Generator) -> list[float]:
    shares = rng.uniform(0.7, 1.3, rng.integers(5, 7))
    return list(CLIP_SECONDS * shares / shares.sum())


_KINDS = {
    "tv": _Kind(1.5, ("train", "val", "test_public"), _tv_name, _scenes(6.0, 10.0, 3, 5)),
    "violin": _Kind(
        1.5,
        ("train", "val", "test"),
        lambda n, _: f"drama_{n // 20:02d}-clip_{n:04d}",
        _scenes(6.0, 9.0, 1, 2),
        train_factor=3,  # one bit per statement: it takes many, so they are short
    ),
    "didemo": _Kind(1.5, ("train", "val", "test"), _flickr_name, _didemo_lengths),
    "msrvtt": _Kind(
        2.0, ("train", "val", "test"), lambda n, _: f"video{n}", _scenes(8.0, 12.0, 1, 2)
    ),
    "how2": _Kind(2.0, ("train", "val"), lambda _, rng: _youtube_id(rng), _how2_lengths),
    "yc2": _Kind(1.5, ("train", "val", "test"), _yc2_name, _scenes(8.0, 20.0, 1, 1)),
    "vatex": _Kind(
        1.5,
        ("train", "val", "test_public", "test_private"),
        _vatex_name,
        _scenes(9.5, 10.5, 1, 1),
        train_factor=2,
        shares={"test_public": 3},  # captions are validated on it
    ),
    "vlep": _Kind(
        1.5,
        ("train", "dev", "test"),
        lambda n, _: f"{_clip_of_show('soap', n)}_ep",
        _scenes(6.0, 9.0, 1, 2),
        train_factor=2,
    ),
}
# Like HowTo100M: long videos with the subtitles of the whole video.
_KINDS[LONG_VIDEOS] = replace(_KINDS["how2"], splits=("train",), train_factor=0.25)
DATASETS = tuple(_KINDS)


def make_dataset(name: str, train_videos: int, seed: int) -> Dataset:
    """Make the videos (How2: clips) of a data set: 8 to train on for 3 to validate, 1 to test."""
    kind = _KINDS[name]
    rng = np.random.default_rng([seed, stable_hash(name)])
    maker = SceneMaker(rng)
    splits: dict[str, list[Video]] = {}
    names: set[str] = set()
    for split in kind.splits:
        share = kind.shares.get(split, _SHARES[split])
        count = max(4, train_videos * share // 8)
        if split == "train":
            count = int(count * kind.train_factor)
        videos = splits[split] = []
        while len(videos) < count:
            id_ = kind.name(len(names), rng)
            names.add(id_)
            if name == "how2":
                videos.extend(_clips(id_, maker, rng))
            elif name == LONG_VIDEOS:
                videos.append(_joined(id_, _clips(id_, maker, rng)))
            else:
                videos.append(maker.video(id_, kind.lengths(rng)))
    dataset = Dataset(name, kind.interval, splits)
    for video in dataset.videos:
        if rng.random() >= _SILENT:
            video.subtitles = speak(video, rng)
    return dataset


def _clips(id_: str, maker: SceneMaker, rng: np.random.Generator) -> list[Video]:
    """Return a long video as its clips ``<id>.<n>``: each lasts a minute, the last one less."""
    clips = [maker.video(f"{id_}.{n}", _how2_lengths(rng)) for n in range(rng.integers(2, 4))]
    last = clips[-1]
    last.scenes.pop()
    last.duration = last.scenes[-1].end
    return clips


def _joined(id_: str, clips: list[Video]) -> Video:
    """Return the long video that the clips are of."""
    starts = [number * CLIP_SECONDS for number in range(len(clips))]
    scenes = [
        replace(scene, start=scene.start + start, end=scene.end + start)
        for clip, start in zip(clips, starts, strict=True)
        for scene in clip.scenes
    ]
    return Video(id_, starts[-1] + clips[-1].duration, scenes)


def vid2nframe(dataset: Dataset) -> dict[str, int]:
    """Return the number of frames of each video."""
    return {video.name: dataset.frames(video) for video in dataset.videos}


def vid2dur_idx(dataset: Dataset, seed: int) -> dict[str, dict[str, list]]:
    """Return durations and indices by split; an index is unique over the splits, in no order.

    Private test videos have none: they are not searched.
    """
    rng = np.random.default_rng([seed, stable_hash(f"{dataset.name} indices")])
    indices = iter(5000 + rng.permutation(len(dataset.videos)))
    return {
        split: {video.name: [video.duration, int(next(indices))] for video in videos}
        for split, videos in dataset.splits.items()
        if split != "test_private"
    }


def feature_roots(dataset: Dataset) -> dict[str, list[FeatureJob]]:
    """Return the feature files by the extractors' folder: one for a data set, or one a shard."""
    if dataset.name == "how2":
        return {"how2": _source_video_jobs(dataset)}
    jobs = [
        FeatureJob(
            video.name,
            _feature_folder(dataset.name, video.name),
            dataset.frames(video),
            dataset.interval,
            tuple(video.spans),
        )
        for video in dataset.videos
    ]
    if dataset.name == LONG_VIDEOS:
        return {f"{LONG_VIDEOS}_{shard}": jobs[shard::SHARDS] for shard in range(SHARDS)}
    return {dataset.name: jobs}


def _feature_folder(dataset: str, video: str) -> str | None:
    if dataset in OF_VALUE:
        return None
    return video.split("_")[0] if dataset == "tv" else dataset


def _source_video_jobs(dataset: Dataset) -> list[FeatureJob]:
    """Return a file for each source video of How2; its clips are frames of it."""
    jobs: dict[str, FeatureJob] = {}
    for clip in dataset.videos:
        id_, number = clip.name.rsplit(".", 1)
        offset = int(number) * CLIP_SECONDS
        spans = tuple(Span(s.start + offset, s.end + offset, s.words) for s in clip.spans)
        before = jobs[id_].spans if id_ in jobs else ()
        frames = math.ceil((offset + clip.duration) / dataset.interval)
        jobs[id_] = FeatureJob(id_, "how2", frames, dataset.interval, before + spans)
    return list(jobs.values())
