"""The feature database that a run's options name, opened without PyTorch."""

from config.groups import VideoOptions
from data.stores.lmdb_io import FeatureDb


def open_features(options: VideoOptions, folder: str, interval: float) -> FeatureDb:
    """Open a feature database; numbers of frames that it lacks may be kept in the run's folder.

    Args:
        options: of a run.
        folder: the data set's folder.
        interval: seconds per frame.

    Raises:
        UserError: it is missing or damaged.
    """
    return FeatureDb(
        folder,
        options.vfeat_version,
        interval,
        options.compressed_db,
        options.max_clip_len,
        counts_folder=options.run_folder / "log",
    )


def is_video_only(task: str) -> bool:
    """Whether a task's videos come without subtitles (``…_video_only``)."""
    return task.endswith("_video_only")
