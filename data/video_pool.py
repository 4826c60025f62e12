"""The videos of a split's queries, the videos that are searched, and the number of each."""

from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data.stores.lmdb_io import TextDb, read_side
from data.video_indices import VIDEO_INDICES, split_indices
from utils.errors import UserError
from utils.files import read_json
from utils.logger import LOGGER
from utils.names import text_names

if TYPE_CHECKING:  # it needs PyTorch
    from data.video import VideoSource

VIDEO_SUFFIXES = (  # of video files that FFmpeg reads
    *(".mp4", ".m4v", ".mov", ".qt", ".mkv", ".mk3d", ".webm", ".avi", ".divx", ".wmv", ".asf"),
    *(".flv", ".f4v", ".mpg", ".mpeg", ".mpe", ".m2p", ".vob", ".vro", ".evo", ".m1v", ".m2v"),
    *(".ts", ".m2ts", ".mts", ".m2t", ".trp", ".ogv", ".ogm", ".3gp", ".3gpp", ".3g2", ".ismv"),
    *(".gif", ".apng", ".mxf", ".gxf", ".dv", ".dif", ".nut", ".nsv", ".rm", ".rmvb", ".wtv"),
    *(".dvr-ms", ".dav", ".amv", ".swf", ".y4m", ".ivf", ".obu", ".mj2", ".mjpeg", ".mjpg"),
    *(".h261", ".h263", ".h264", ".264", ".avc", ".h265", ".265", ".hevc", ".h266", ".266"),
    *(".vvc", ".insv", ".lrv"),
)


def feature_name(vid: str, known: Container[str]) -> str:
    """Return a video's name, without a video file's suffix where ``known`` has it only without."""
    stem, dot, ending = vid.rpartition(".")
    if stem and (dot + ending).lower() in VIDEO_SUFFIXES and vid not in known and stem in known:
        return stem
    return vid


def query_videos(db: TextDb, known: Container[str] = ()) -> dict[str, str]:
    """Return the video of every query; empty for a split that names none.

    Args:
        db: query database.
        known: names of the feature database (see :func:`feature_name`).

    Raises:
        UserError: ``query2video.json`` holds something else than names.
    """
    if not db.has_side("query2video.json"):
        return {}
    table = db.side("query2video.json")
    return {q: feature_name(str(vid), known) for q, vid in table.items() if vid is not None}


def named_videos(queries: TextDb, known: Container[str]) -> list[str]:
    """Return the videos that a split's queries name, or else those of ``video_ids.json``."""
    named = list(query_videos(queries, known).values())
    if not named and queries.has_side("video_ids.json"):
        named = [feature_name(str(vid), known) for vid in queries.side("video_ids.json")]
    return list(dict.fromkeys(named))


@dataclass(frozen=True, slots=True)
class VideoPool:
    """Videos to search."""

    file: Path  # that lists them
    numbers: dict[str, int]  # of each video in results files


def numbered_videos(
    split: str,
    queries: TextDb,
    subtitles: TextDb | None,
    known: Iterable[str],
    own_indices: bool = True,
    required: bool = False,
    indices: str | Path | None = None,
) -> VideoPool:
    """Return the videos to search for a split's queries, with their numbers in results files.

    They are the split's videos in ``vid2dur_idx.json``, by the index there; without ``own_indices``
    or where that file lacks the split, the videos that the queries name, by their index among the
    sorted names of the features (−1: no features).

    Args:
        split: name of the split.
        queries, subtitles: its databases.
        known: names of the feature database.
        own_indices: ``vid2dur_idx.json`` lists the videos.
        required: rule of VALUE: ``vid2dur_idx.json``, if there is one, must have the split.
        indices: that file; None: the subtitle database's.

    Raises:
        UserError: a list or table of videos is malformed, two videos share an index, or a
            ``required`` split is missing.
    """
    order = {vid: number for number, vid in enumerate(sorted(known))}
    file = Path(indices) if indices else None
    if file is None and subtitles is not None and subtitles.has_side(VIDEO_INDICES):
        file = subtitles.path / VIDEO_INDICES
    if file and (own_indices or required):
        indexed = split_indices(read_side(file), split, file, required)
        if indexed:
            return VideoPool(file, {feature_name(vid, order): i for vid, i in indexed.items()})
    if required:
        LOGGER.warning(
            "no %s of the videos that %s searches (it belongs in the subtitle database): results "
            "number them by their sorted names, which no server reads",
            *(VIDEO_INDICES, queries.path),
        )
    numbers = {vid: order.get(vid, -1) for vid in named_videos(queries, order)}
    lists = ("query2video.json", "video_ids.json")
    by_ids = not query_videos(queries, order) and queries.has_side(lists[1])
    return VideoPool(queries.path / lists[by_ids], numbers)


def video_pool(
    split: str,
    queries: TextDb,
    subtitles: TextDb | None,
    source: "VideoSource",
    own_indices: bool = True,
    required: bool = False,
    indices: str | Path | None = None,
) -> tuple[VideoPool, dict[str, int]]:
    """Return :func:`numbered_videos`, and the numbers of those that ``source`` has available.

    Raises:
        UserError: also where no videos are named, or some are missing (see
            :meth:`data.video.VideoSource.require`).
    """
    known = source.features.id2nframe
    pool = numbered_videos(split, queries, subtitles, known, own_indices, required, indices)
    if not pool.numbers:
        raise UserError(
            f"split {split} names no videos: neither {queries.path} nor the subtitle database's "
            f"{VIDEO_INDICES} has any"
        )
    there = source.require(pool.numbers, f"split {split} in {pool.file}")
    return pool, {vid: pool.numbers[vid] for vid in there}


def check_own_videos(
    where: object, qids: Collection[str], video_of: Mapping[str, str], pool: VideoPool
) -> None:
    """Warn of queries of a database (``where``) without a video, or whose video is not searched;
    UserError if none is."""
    unknown = [qid for qid in qids if qid not in video_of]
    if 0 < len(unknown) < len(qids):
        LOGGER.warning(
            "%d of %d queries of %s (first: %s) name no video: no metric counts them",
            *(len(unknown), len(qids), where, unknown[0]),
        )
    outside = [qid for qid in qids if qid in video_of and video_of[qid] not in pool.numbers]
    if not outside:
        return
    known = len(qids) - len(unknown)
    first = f"(first: query {outside[0]}, video {video_of[outside[0]]})"
    if len(outside) == known:
        raise UserError(
            f"all {known} queries of {where} are about videos that are not searched {first}; those "
            f"of {pool.file} are: give the query database of this split, or a {VIDEO_INDICES} that "
            "has their videos"
        )
    LOGGER.warning(
        "%d of %d queries of %s are about videos that are not searched %s, as %s lacks them: they "
        "count as wrong",
        *(len(outside), known, where, first, pool.file),
    )


def read_split(file: str) -> list[str]:
    """Read a JSON list of video names, as text; UserError if it is something else, or empty."""
    vids = read_json(file)
    if not isinstance(vids, list) or not vids:
        raise UserError(
            f'{file} is not a list of video names, ["a", "b", …]; make it with '
            "scripts/make_pretrain_splits.py"
        )
    return text_names(vids, file)
