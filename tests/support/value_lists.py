"""VALUE's lists over the recorded world: entries of its data sets, and options around them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from config.groups import Kind
from config.value import RETRIEVAL, TASKS

CORPORA = {"violin": "tv"}  # in the recorded world; elsewhere as everywhere


def recorded_entry(
    world: Path, data_set: str, channel: str, training: bool, **others: Any
) -> dict[str, Any]:
    """An entry of the lists: the training split, or the one that selects a checkpoint."""
    task = TASKS[data_set]
    corpus = CORPORA.get(data_set, task.corpus)
    databases = world / "txt_db"
    entry = {
        "task": task.task,
        "name": f"{data_set}_{channel}_{'train' if training else task.selection}",
        "vfeat_db": str(world / "video_db" / corpus),
        "sub_txt_db": str(databases / f"{corpus}_subtitles.db"),
    }
    if channel == "video_only" and task.kind not in RETRIEVAL:  # which needs its indices
        del entry["sub_txt_db"]
    file = task.evaluated[task.selection]
    if task.kind is not Kind.CAPTIONS:
        entry["query_txt_db"] = str(databases / (task.train[0] if training else file))
    elif training:
        entry["cap_txt_db"] = [str(databases / name) for name in task.train]
    else:
        entry["gt_anno"] = str(world / "ann" / file)
    return entry | others


def recorded_lists(
    folder: Path,
    sizes: Mapping[str, int],
    channel: str = "video_sub",
    **others: Any,
) -> dict[str, Any]:
    """Options of a run over a recorded world's data sets.

    Args:
        folder: of the record.
        sizes: the data sets, and the batch size of each.
        channel: of all.
        others: further options.
    """
    world = folder / "world"
    return {
        "train_datasets": [
            recorded_entry(world, name, channel, True, batch_size=size)
            for name, size in sizes.items()
        ],
        "val_datasets": [
            recorded_entry(world, name, channel, False, batch_size=2) for name in sizes
        ],
        "model_config": str(folder / "expected" / "model_finetune.json"),
        "toker": str(world / "toker"),
        "n_workers": 0,
        "pin_mem": False,
        **others,
    }
