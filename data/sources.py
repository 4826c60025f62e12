"""The video source that a task's options name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from config.groups import Channel, VideoDbOptions
from config.value import SetOptions
from data.run_features import open_features
from data.stores.lmdb_io import FeatureDb, TextDb
from data.video import SubtitleOnlySource, SubtitleSource, VideoOnlySource, VideoSource
from utils.errors import UserError
from utils.logger import LOGGER


class QueryTokens(Protocol):
    """The tokens of a query database."""

    @property
    def meta(self) -> Mapping[str, Any]: ...

    @property
    def vocab_size(self) -> int | None: ...


@dataclass
class VideoData:
    """Databases of a corpus and the source that reads videos from them."""

    features: FeatureDb
    subtitles: TextDb | None
    source: VideoSource


def open_videos(
    options: VideoDbOptions | SetOptions, queries: QueryTokens, channel: Channel = Channel.VIDEO_SUB
) -> VideoData:
    """Open the video databases that ``options`` name.

    Args:
        options: of a run.
        queries: a query database, with the ``vocab_size`` of the subtitles' tokens, too; without
            subtitles, with the id of ``<s>``.
        channel: what is read of videos.

    Raises:
        UserError: a database is missing or damaged.
    """
    features = open_features(options, options.vfeat_db, options.vfeat_interval)
    subtitles = TextDb(options.sub_txt_db, queries.vocab_size) if options.sub_txt_db else None
    # Training warns of it in its data check.
    if subtitles is not None and getattr(options, "skip_data_check", True):
        interval = subtitles.meta.get("frame_length")
        if interval not in (None, features.interval):
            LOGGER.warning(
                "%s was made for %g seconds a frame, vfeat_interval is %g: subtitles lie over "
                "other frames than they were spoken over",
                *(subtitles.path, interval, features.interval),
            )
    source: VideoSource
    if channel == Channel.VIDEO_ONLY:
        source = VideoOnlySource(features, queries.meta["CLS"], options.only_available)
    elif subtitles is None:
        raise UserError(f"missing options: --sub_txt_db (channel {channel} reads subtitles)")
    else:
        kind = SubtitleOnlySource if channel == Channel.SUB_ONLY else SubtitleSource
        source = kind(subtitles, features, options.sub_ctx_len, options.only_available)
    return VideoData(features, subtitles, source)
