"""Small databases of every task, which a test can damage before they are written."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from config.value import TASKS as VALUE_TASKS
from data.stores.lmdb_io import FeatureDbWriter, TextDbWriter
from tests.support.small_world import BLOCK
from utils.files import read_json, write_json, write_jsonl

INTERVAL = 2.0
WIDTH = 4
VOCABULARY = 50
FRAMES = {"a": 6, "b": 5, "c": 4, "d": 3}
SPLITS = {"train": ["a", "b"], "val": ["c"], "test": ["d"]}
META = {"CLS": 0, "BOS": 0, "PAD": 1, "SEP": 2, "EOS": 2, "UNK": 3, "MASK": 49}
META |= {"v_range": [4, 49], "toker": "some/toker"}


@dataclass
class TextFiles:
    """A text database to be: records by id, and side files by name."""

    records: dict[str, dict]
    sides: dict[str, Any]
    lines: list[dict] = field(default_factory=list)  # of query_data.jsonl

    def write(self, path: Path) -> None:
        with TextDbWriter(path) as db:
            for id_, record in self.records.items():
                db.put(id_, record)
            for name, value in self.sides.items():
                db.write_side(name, value)


def subtitle_files() -> TextFiles:
    records = {}
    for vid, frames in FRAMES.items():
        places = [[0, [0, 1]], [1, [frames - 1]]]
        spans = [(0.5, 3.0), (frames * INTERVAL - 1.5, frames * INTERVAL)]
        records[vid] = {
            "vid_name": vid,
            "sub": [{"text": "word", "start": start, "end": end} for start, end in spans],
            "input_ids": [[10, 11], [12]],
            "sub2frames": places,
            "unique_sub2frames": places,
            "unmatched_frames": [],
            "v_id": vid,
            "duration": frames,
        }
    index = {
        split: {vid: [FRAMES[vid] * INTERVAL, ord(vid)] for vid in vids}
        for split, vids in SPLITS.items()
    }
    sides = {"meta.json": META | {"frame_length": INTERVAL}, "vid2len.json": dict(FRAMES)}
    return TextFiles(records, sides | {"vid2dur_idx.json": index})


def moments(split: str) -> Iterator[dict]:
    for vid in SPLITS[split]:
        for number in range(2):
            yield {"qid": f"{vid}{number}", "vid": vid, "input_ids": [20, 21], "target": [1.0, 3.5]}


def questions(split: str) -> Iterator[dict]:
    for vid in SPLITS[split]:
        texts = [[20], [21, 22], [23]]
        record = {"qid": f"{vid}0", "vid": vid, "input_ids": texts, "target": 1, "ts": "1.0-3.5"}
        yield record
        yield record | {"qid": f"{vid}1", "target": 0}


def statements(split: str) -> Iterator[dict]:
    for vid in SPLITS[split]:
        for label in range(2):
            yield {"qid": f"{vid}-{label}", "vid": vid, "input_ids": [20, 21], "target": label}


def descriptions(split: str) -> Iterator[dict]:
    for record in moments(split):
        yield record | {"target": None}


def events(split: str) -> Iterator[dict]:
    for record in questions(split):
        yield record | {"input_ids": [[20], [21, 22]], "ts": [1.0, 3.5]}


TASKS = {"tvr": moments, "msrvtt_video_sub": moments, "tvqa": questions, "violin": statements}
# VALUE's, in lists of data sets.
LISTED = {"yc2r": descriptions, "vlep": events, "yc2c": descriptions}


def query_files(task: str, split: str) -> TextFiles:
    records = {record["qid"]: record for record in (TASKS | LISTED)[task](split)}
    lengths, videos = {}, {}
    for id_, record in records.items():
        ids = record["input_ids"]
        parted = task in ("tvqa", "vlep")
        lengths[id_] = [len(part) for part in ids] if parted else len(ids)
        videos[id_] = record["vid"]
    sides = {"meta.json": dict(META), "id2len.json": lengths, "query2video.json": videos}
    lines = [
        {"desc_id": id_, "desc": "words", "vid_name": record["vid"], "ts": [1.0, 3.5]}
        for id_, record in records.items()
    ]
    return TextFiles(records, sides, lines)


def caption_files(split: str) -> tuple[TextFiles, TextFiles]:
    captions, clips = {}, {}
    for vid in SPLITS[split]:
        clip = {"vid_name": vid, "ts": [1.0, 3.5], "sub_indices": [0], "duration": 9.0}
        ids = [f"{vid}0", f"{vid}1"]
        for id_ in ids:
            record = {"desc": "words", "desc_id": id_, "input_ids": [20, 21], "clip_id": f"{vid}c"}
            captions[id_] = record | clip
        clips[f"{vid}c"] = clip | {"captions": [{"id": id_, "text": "words"} for id_ in ids]}
    by_video = {vid: [f"{vid}0", f"{vid}1"] for vid in SPLITS[split]}
    video_of = {id_: vid for vid, ids in by_video.items() for id_ in ids}
    clip_side = {"clip2vid.json": {f"{vid}c": vid for vid in by_video}}
    clip_side |= {"vid2clips.json": {vid: [f"{vid}c"] for vid in by_video}}
    sides = {"cap2vid.json": video_of, "vid2caps.json": by_video, "id2len.json": {}}
    return TextFiles(captions, sides), TextFiles(clips, clip_side)


@dataclass
class World:
    """Databases to be, and the options that name them.

    Attributes:
        folder: where they will be.
        task: one of ``TASKS`` or ``LISTED``, ``tvc`` or ``pretrain``.
        features: of each video.
        counts: what ``id2nframe.json`` says otherwise than the features.
        feature_meta: ``meta.json`` of the features.
        compressed: whether the features are written as npz.
        subtitles, queries, captions: of each split; captions with their clips.
        options: further ones.
        listed: videos of a list to pre-train on.
        clip: the one to caption.
    """

    folder: Path
    task: str = "tvr"
    features: dict[str, np.ndarray] = field(default_factory=dict)
    counts: dict[str, int | None] = field(default_factory=dict)
    feature_meta: dict | None = None
    compressed: bool = False
    subtitles: TextFiles = field(default_factory=subtitle_files)
    queries: dict[str, TextFiles] = field(default_factory=dict)
    captions: dict[str, tuple[TextFiles, TextFiles]] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    listed: list[str | int] = field(default_factory=lambda: list(FRAMES))
    clip: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(0)
        self.features = {
            vid: rng.standard_normal((frames, WIDTH)).astype(np.float32)
            for vid, frames in FRAMES.items()
        }
        self.clip = {"vid_name": "c", "clip_id": "cc", "descs": [{"desc": "words"}]}
        if self.task in TASKS | LISTED:
            self.queries = {split: query_files(self.task, split) for split in SPLITS}
        elif self.task == "tvc":
            self.captions = {split: caption_files(split) for split in ("train", "val")}
            self.clip["ts"] = [1.0, 3.5]

    def write(self) -> Path:
        """Write everything; returns a file for ``--config``."""
        text = BLOCK | {"vocab_size": VOCABULARY}
        model = {"f_config": text, "c_config": BLOCK, "q_config": BLOCK, "d_config": text}
        write_json(self.folder / "model.json", model)
        self._write_features()
        self.subtitles.write(self.folder / "subtitles.db")
        for split, files in self.queries.items():
            files.write(self.folder / f"{split}.db")
            write_jsonl(self.folder / f"{split}.db" / "query_data.jsonl", files.lines)
        for split, (captions, clips) in self.captions.items():
            captions.write(self.folder / f"{split}.db" / "cap.db")
            clips.write(self.folder / f"{split}.db" / "clip.db")
            write_json(self.folder / f"{split}.db" / "meta.json", META)
        write_jsonl(self.folder / "ref.jsonl", [self.clip])
        write_json(self.folder / "vids.json", self.listed)
        write_json(self.folder / "config.json", self.config())
        return self.folder / "config.json"

    def _write_features(self) -> None:
        video = self.folder / "video"
        with FeatureDbWriter(video, interval=INTERVAL, compressed=self.compressed) as db:
            for vid, features in self.features.items():
                db.put(vid, features)
            if self.feature_meta is not None:
                write_json(db.folder / "meta.json", self.feature_meta)
        counts = read_json(video / "id2nframe.json") | self.counts
        told = {vid: count for vid, count in counts.items() if count is not None}
        write_json(video / "id2nframe.json", told)

    def config(self) -> dict[str, Any]:
        """Options of the training script."""
        folder = self.folder
        videos = {"sub_txt_db": str(folder / "subtitles.db"), "vfeat_db": str(folder / "video")}
        if self.task in LISTED:
            return run_options(folder) | self.lists(videos) | self.options
        videos["vfeat_interval"] = INTERVAL
        run = run_options(folder)
        if self.task == "pretrain":
            split = {"name": "all", "tasks": ["mlm", "vsm"], "ratio": [1, 1]}
            split |= dict.fromkeys(("train_idx", "val_idx"), str(folder / "vids.json"))
            return run | {"targets": [videos | {"name": "x", "splits": [split]}]} | self.options
        paths = {f"{split}_query_txt_db": str(folder / f"{split}.db") for split in self.queries}
        if self.task == "tvc":
            paths = {f"{split}_db": str(folder / f"{split}.db") for split in self.captions}
            paths["val_ref"] = str(folder / "ref.jsonl")
        return run | {"task": self.task} | videos | paths | self.options

    def lists(self, videos: dict[str, str]) -> dict[str, Any]:
        """VALUE's lists of one data set."""
        task = VALUE_TASKS[self.task]
        train, val = (videos | {"task": task.task, "name": f"{self.task}_video_sub_"} for _ in "12")
        train["name"] += "train"
        val["name"] += task.selection
        if task.task == "videoCap":
            train["cap_txt_db"] = [str(self.folder / "train.db")]
            val["gt_anno"] = str(self.folder / "ref.jsonl")
        else:
            train["query_txt_db"] = str(self.folder / "train.db")
            val["query_txt_db"] = str(self.folder / "val.db")
        lists = {"train_datasets": [train], "val_datasets": [val]}
        return lists | {"vfeat_interval": INTERVAL}


def run_options(folder: Path) -> dict[str, str]:
    """Where a run's model and outputs are."""
    return {"model_config": str(folder / "model.json"), "output_dir": str(folder / "run")}
