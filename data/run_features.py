"""The feature database that a run's options name, opened without PyTorch."""

from config.groups import Channel, VideoOptions
from data.stores.lmdb_io import FeatureDb


def open_features(options: VideoOptions, folder: str, interval: float) -> FeatureDb:
    """Open the feature database of a data set's folder; frame counts that it lacks may be saved in
    the run's folder. UserError if it is missing or damaged."""
    return FeatureDb(
        folder,
        options.vfeat_version,
        interval,
        options.compressed_db,
        options.max_clip_len,
        counts_folder=options.run_folder / "log",
    )


def channel_of(task: str) -> Channel:
    """Return the channel of a task, by the end of its name."""
    return next((each for each in Channel if task.endswith(f"_{each}")), Channel.VIDEO_SUB)
