"""The video source that a task's options ask for."""

from dataclasses import dataclass
from typing import Any

from data.lmdb_io import FeatureDb, TextDb
from data.video import SubtitleSource, VideoOnlySource, VideoSource


@dataclass
class VideoData:
    """Databases of a corpus and the source that reads videos from them."""

    features: FeatureDb
    subtitles: TextDb | None
    source: VideoSource


def open_videos(options: Any, queries: TextDb, video_only: bool = False) -> VideoData:
    """Open the video databases that ``options`` name.

    Args:
        options: ``config.groups.VideoDbOptions``.
        queries: a query database; without subtitles, it says which token ``<s>`` is.
        video_only: leave the subtitles' text out.

    Raises:
        UserError: a database is missing or damaged.
    """
    features = FeatureDb(
        options.vfeat_db,
        options.vfeat_version,
        options.vfeat_interval,
        options.compressed_db,
        options.max_clip_len,
    )
    subtitles = TextDb(options.sub_txt_db) if options.sub_txt_db else None
    if video_only:
        return VideoData(features, subtitles, VideoOnlySource(features, queries.meta["CLS"]))
    return VideoData(features, subtitles, SubtitleSource(subtitles, features, options.sub_ctx_len))


def is_video_only(task: str) -> bool:
    """Whether a task's videos come without subtitles (``…_video_only``)."""
    return task.endswith("_video_only")
