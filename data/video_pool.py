"""Which videos a split's queries are about, which are searched, and the number of each."""

from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data.stores.lmdb_io import TextDb, read_side
from data.video_indices import VIDEO_INDICES, required_indices, split_indices
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
    """A video's name, without a video file's ending where ``known`` has it only without."""
    stem, dot, ending = vid.rpartition(".")
    if stem and (dot + ending).lower() in VIDEO_SUFFIXES and vid not in known and stem in known:
        return stem
    return vid


def query_videos(db: TextDb, known: Container[str] = ()) -> dict[str, str]:
    """Video of every query; empty for a split that does not tell.

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


def _indexed_videos(
    split: str, file: Path, known: Container[str], required: bool
) -> dict[str, int]:
    """Index of a split's videos in a ``vid2dur_idx.json``."""
    read = required_indices if required else split_indices
    indices = read(read_side(file), split, file)
    return {feature_name(vid, known): index for vid, index in indices.items()}


def indices_file(subtitles: TextDb | None) -> Path | None:
    """The subtitle database's ``vid2dur_idx.json``; None where it has none."""
    if subtitles is None or not subtitles.has_side(VIDEO_INDICES):
        return None
    return subtitles.path / VIDEO_INDICES


def named_videos(queries: TextDb, known: Container[str]) -> list[str]:
    """Videos that a split's queries name; where they name none, those of ``video_ids.json``."""
    named = list(query_videos(queries, known).values())
    if not named and queries.has_side("video_ids.json"):
        named = [feature_name(str(vid), known) for vid in queries.side("video_ids.json")]
    return list(dict.fromkeys(named))


@dataclass(frozen=True, slots=True)
class VideoPool:
    """Videos to search.

    Attributes:
        file: which says so.
        numbers: what a results file calls each.
    """

    file: Path
    numbers: dict[str, int]


def numbered_videos(
    split: str,
    queries: TextDb,
    subtitles: TextDb | None,
    known: Iterable[str],
    own_indices: bool = True,
    required: bool = False,
    indices: str | Path | None = None,
) -> VideoPool:
    """Videos to search for a split's queries, and the number that a results file gives each.

    They are the split's videos in the subtitle database's ``vid2dur_idx.json``, by the index there
    (``own_indices``); where that lacks the split, and for tasks that search the videos that their
    queries name, these, by their place among the sorted names of the features (``known``; −1 for
    one that is not there).

    Args:
        split, queries, subtitles, known, own_indices: see above.
        required: as VALUE has it, whatever the task and the channel: the split must be in the file
            of indices, where there is one.
        indices: that file; None: the subtitle database's.

    Raises:
        UserError: a list or table of videos is malformed, two videos have one index, or the split
            is not where it must be.
    """
    place = {vid: number for number, vid in enumerate(sorted(known))}
    file = Path(indices) if indices else indices_file(subtitles)
    if file and (own_indices or required):
        indexed = _indexed_videos(split, file, place, required)
        if indexed:
            return VideoPool(file, indexed)
    if required:
        LOGGER.warning(
            "no %s of the videos that %s searches (it lies in the subtitle database): results "
            "number them by their sorted names, which no server reads",
            *(VIDEO_INDICES, queries.path),
        )
    numbers = {vid: place.get(vid, -1) for vid in named_videos(queries, place)}
    lists = ("query2video.json", "video_ids.json")
    by_ids = not query_videos(queries, place) and queries.has_side(lists[1])
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
    """:func:`numbered_videos`, and the numbers of those that are there: all, as a rule (see
    :meth:`data.video.VideoSource.require`).

    Raises:
        UserError: also where no videos are named, or some are not there.
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
    """Say which queries have no video to be judged by, or one that is not searched.

    Args:
        where: the query database.
        qids: its queries.
        video_of: their videos.
        pool: the videos to search.

    Raises:
        UserError: none of the videos is searched.
    """
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
    """A JSON list of video names, as text.

    Raises:
        UserError: it is something else, or empty.
    """
    vids = read_json(file)
    if not isinstance(vids, list) or not vids:
        raise UserError(
            f'{file} is not a list of video names, ["a", "b", …]; make it with '
            "scripts/make_pretrain_splits.py"
        )
    return text_names(vids, file)
