"""Options of a short training of every task whose steps can be compared between ranks.

Dropout is off. A loss is a mean over what a rank has of it (words of captions, questions with a
span, masked frames), and gradients are means over ranks: that is the mean over all only where ranks
have equally many, so seeds are chosen with which they do. Ranking losses have the gradient of one
process (``ranking_gradient`` undivided).
"""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from data.loader import ItemKey, RankBatches
from data.mix import part_seed
from data.pretraining import ObjectiveDataset, collate_objective
from data.stores.lmdb_io import FeatureDb, TextDb
from data.tvc import CaptionDataset, caption_texts
from data.video import SubtitleSource
from data.videoQA import QuestionDataset
from data.violin import StatementDataset
from tests.support.recorded import recorded_source
from tests.support.recorded_captions import tvc_options
from utils.files import write_json

BATCH = 4  # of all ranks together
STEPS = 2  # the last one's learning rate is next to nothing
# Pre-training objectives whose steps can be compared. The negatives of mfm-nce are of a rank's own
# batch, so on several ranks it is another loss.
COUNTED = {
    "mlm": lambda asked: len(asked.batch.rows),
    "mffr": lambda asked: len(asked.batch.chosen),
    "fom": lambda asked: len(asked.batch.slots),
    "vsm": lambda asked: len(asked.ids),
}
OBJECTIVES = tuple(COUNTED)
# So little that most texts and videos have the one that each has at least.
MASKING = SimpleNamespace(mask_prob=0.01, max_txt_len=60)


def equal_items_seed(
    dataset: Callable[[int], Any],
    size: Callable[[Any, ItemKey], object],
    order_seed: Callable[[int], int] = lambda seed: seed,
) -> int:
    """A seed with which the first batch's items count alike, however ranks share them.

    Args:
        dataset: training items, by seed.
        size: what the losses of an item are means over.
        order_seed: from a run's seed to that of the data's order.
    """
    for seed in range(3000):
        data = dataset(seed)
        keys, _ = next(RankBatches(len(data), BATCH, seed=order_seed(seed)).batches({}))
        if len({str(size(data, key)) for key in keys}) == 1:
            return seed
    raise AssertionError("no seed gives all items as many")


def training_options(world: Path, expected: Path, folder: Path) -> dict[str, dict]:
    """Options by task; lists of videos are written into ``folder``."""
    everywhere = {
        "dropout": 0.0,
        "model_config": str(expected / "model_finetune.json"),
        "checkpoint": str(expected / "pretrained.pt"),
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-3,
        "lr_mul": 1.0,
        "warmup_steps": 0,
        "log_steps": 1,
        "num_train_steps": STEPS,
        "valid_steps": STEPS,
        "save_steps": 1,
        "val_batch_size": 3,
        "n_workers": 0,
    }
    captioning = tvc_options(world, expected) | caption_options(world)
    tasks = query_options(world) | {"tvc": captioning} | pretraining_options(world, folder)
    return {task: everywhere | options for task, options in tasks.items()}


def video_options(world: Path) -> dict[str, str]:
    """The recorded videos."""
    subtitles, features = world / "txt_db" / "tv_subtitles.db", world / "video_db" / "tv"
    return {"sub_txt_db": str(subtitles), "vfeat_db": str(features)}


def query_options(world: Path) -> dict[str, dict]:
    """Tasks with query databases."""
    source, more = recorded_source(world), {}
    more["tvr"] = {"drop_svmr_prob": 0.0, "max_vcmr_video": 4, "nms_thd": 0.5}
    more["tvr"] |= {"vcmr_eval_video_batch_size": 2, "ranking_gradient": "undivided"}
    more["msrvtt"] = {"ranking_gradient": "undivided"}
    for task, dataset_class in (("tvqa", QuestionDataset), ("violin", StatementDataset)):
        data = dataset_class(TextDb(world / f"txt_db/{task}_train.db"), source, training=True)
        seed = equal_items_seed(
            lambda _, data=data: data, lambda data, key: data.collate([data[key]]).counts
        )
        more[task] = {"seed": seed}
    common = video_options(world) | {"vfeat_interval": 1.5}
    return {
        task: common
        | {f"{part}_query_txt_db": f"{world}/txt_db/{task}_{part}.db" for part in ("train", "val")}
        | options
        for task, options in more.items()
    }


def caption_options(world: Path) -> dict[str, Any]:
    """One caption per video."""
    source, captions = recorded_source(world), caption_texts(world / "txt_db" / "tvc_train.db")
    seed = equal_items_seed(
        lambda seed: CaptionDataset(captions, source, 1, 60, seed),
        lambda data, key: len(data.collate([data[key]]).targets),
    )
    return {"max_cap_per_vid": 1, "seed": seed}


def pretraining_options(world: Path, folder: Path) -> dict[str, dict]:
    """All objectives together, and one by one."""
    videos, source = video_options(world), recorded_source(world)
    vids = list(FeatureDb(videos["vfeat_db"]).id2nframe)
    write_json(folder / "videos" / "val.json", vids)

    def options(name: str, train: list[str], *objectives: str) -> dict[str, Any]:
        write_json(folder / "videos" / f"{name}.json", train)
        split = {"name": "all", "tasks": objectives, "ratio": [1] * len(objectives)}
        split |= {"train_idx": f"videos/{name}.json", "val_idx": "videos/val.json"}
        return {"targets": [{"name": "tv", "splits": [split]} | videos], "txt_db": str(folder)}

    # Of all together, ranks count differently: weights stay as they are, and validation can be
    # compared.
    together = options("train", vids[:-3], "mlm", "mfm-nce", "mffr", "fom", "vsm")
    tasks = {"pretraining": together | {"learning_rate": 1e-12}}
    for objective in OBJECTIVES:
        train = vids if objective == "vsm" else videos_alike(objective, vids, source)
        seed = equal_items_seed(
            lambda seed, args=(objective, train, source, MASKING): ObjectiveDataset(
                *args, part_seed(seed, 0)
            ),
            lambda data, key, count=COUNTED[objective]: count(collate_objective([data[key]])),
            lambda seed: part_seed(seed, 0),
        )
        more = {"seed": seed, "mask_prob": MASKING.mask_prob, "drop_svmr_prob": 0.0}
        more["ranking_gradient"] = "undivided"
        tasks[objective] = options(objective, train, objective) | more
    return tasks


def videos_alike(objective: str, vids: list[str], source: SubtitleSource) -> list[str]:
    """The largest group of videos of which an objective hides equally much; a batch, or more."""
    groups: dict[int, list[str]] = {}
    for vid in vids:
        if data := ObjectiveDataset(objective, [vid], source, MASKING, seed=0):
            batch = collate_objective([data[ItemKey(0, 0)]])
            groups.setdefault(COUNTED[objective](batch), []).append(vid)
    largest = max((group for hidden, group in groups.items() if hidden), key=len)
    return largest * math.ceil(BATCH / len(largest))
