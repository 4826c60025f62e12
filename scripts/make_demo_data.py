#!/usr/bin/env python3
"""Make a small synthetic corpus that HERO can learn from, in the raw formats of every task.

In each scene of a video a person does something with a thing in a place while talking about a
topic. Frame features are noisy sums of fixed random directions of the visible words, subtitles name
the topic, and queries, questions, statements and captions describe both. The same options give the
same bytes. With --tvr_annotations, real TVR queries on synthetic videos.
"""

import argparse
import html
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.prepare.work import work_parser
from scripts.demo_corpus.annotations import TASKS, make_annotations, texts_of, write_csv
from scripts.demo_corpus.datasets import (
    DATASETS,
    LONG_VIDEOS,
    OF_VALUE,
    feature_roots,
    make_dataset,
    vid2dur_idx,
    vid2nframe,
)
from scripts.demo_corpus.features import FeatureFormat, FeatureJob, write_features
from scripts.demo_corpus.real import make_real_corpus
from scripts.demo_corpus.tokenizer import SMALLEST, train_tokenizer
from scripts.demo_corpus.words import stable_hash
from utils.errors import UserError, brief, run_main
from utils.files import check_output, named_path, read_json, write_json, write_jsonl

CORPUS_VERSION = 2  # raise it when the same options give other bytes
SIZES = {"tiny": 16, "debug": 160, "small": 640}  # training videos of each data set


def main(argv: list[str] | None = None) -> dict[str, int]:
    """Write the corpus; return how many lines each annotation file has."""
    options = _parse(argv)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _claim(options)
    if options.tvr_annotations:
        lines, jobs = _write_real(options)
    else:
        lines, jobs = _write_synthetic(options)
    for root, own in jobs.items():
        form = FeatureFormat(options.output / "features" / root, options.seed, options.half)
        write_features(own, form, options.workers)
    print(tabulate(lines.items(), headers=("annotations", "lines")))
    rows = [(name, len(own), sum(job.frames for job in own)) for name, own in jobs.items()]
    print(tabulate(rows, headers=("features", "videos", "frames")))
    return lines


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = work_parser(__doc__)
    add = parser.add_argument
    add("--output", type=named_path, required=True, help="folder of the corpus")
    add("--seed", type=int, default=42)
    add("--size", choices=SIZES, default="debug", help=f"training videos of a data set: {SIZES}")
    add("--videos", type=int, help="training videos of a data set, instead of --size")
    add("--queries_per_video", type=int, default=5, help="texts of each kind for a video")
    add("--toker_size", type=int, default=1000, help="tokens of the tokenizer, at most")
    known = " ".join(DATASETS)
    chosen = f"whose features to write, of {known}; annotations are always written"
    add("--datasets", nargs="+", choices=DATASETS, default=DATASETS, metavar="NAME", help=chosen)
    add("--half", action="store_true", help="features as float16 instead of float32")
    add("--tvr_annotations", type=Path, help="real TVR queries (JSON lines) to make videos for")
    add("--video2dur", type=Path, help="durations of the real videos: {split: {vid: [s, index]}}")
    share = "share of the real videos that become a train split; the rest is val"
    add("--train_share", type=float, default=0.0, help=share)
    options = parser.parse_args(argv)
    if options.videos is None:
        options.videos = SIZES[options.size]
    for name in ("videos", "queries_per_video", "workers"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} must be 1 or more, not {getattr(options, name)}")
    if options.toker_size < SMALLEST:
        raise UserError(f"a byte-level tokenizer needs --toker_size of {SMALLEST} or more")
    if not 0.0 <= options.train_share < 1.0:
        raise UserError(f"--train_share must lie in [0, 1), not {options.train_share}")
    if (options.tvr_annotations is None) != (options.video2dur is None):
        raise UserError("--tvr_annotations and --video2dur go together: give both or neither")
    return options


def _claim(options: argparse.Namespace) -> None:
    keys = ["seed", "videos", "queries_per_video", "toker_size", "half"]
    settings = {"version": CORPUS_VERSION} | {key: getattr(options, key) for key in keys}
    if options.tvr_annotations:
        settings["tvr_annotations"] = options.tvr_annotations.name
        settings["train_share"] = options.train_share
    folders = ("ann", "toker", "txt_db/pretrain_splits", *(f"features/{n}" for n in DATASETS))
    claim(options.output / "corpus.json", settings, folders)


def claim(path: Path, settings: dict[str, Any], folders: Iterable[str]) -> None:
    """Record the options of a corpus in a file next to its folders, which must be writable.

    Raises:
        UserError: the file has other options; files of two corpora must not mix.
    """
    check_output(path, *(path.parent / folder / "file" for folder in folders))
    if not path.exists():
        write_json(path, settings, indent=2)
    elif (old := read_json(path)) != settings:
        raise UserError(f"{path} describes another corpus ({brief(old)}): choose another --output")


def _write_synthetic(
    options: argparse.Namespace,
) -> tuple[dict[str, int], dict[str, list[FeatureJob]]]:
    datasets = {name: make_dataset(name, options.videos, options.seed) for name in DATASETS}
    files: dict[str, list] = {}
    tables: dict[str, dict | list] = {}
    for name, task in TASKS.items():
        rng = np.random.default_rng([options.seed, stable_hash(name)])
        files |= make_annotations(name, datasets[task.dataset], options.queries_per_video, rng)
    files["tvc_val_release.jsonl"] = files["tvc_val.jsonl"]
    files["tvc_test_public_release.jsonl"] = files.pop("tvc_test_public.jsonl")
    for name, data in datasets.items():
        files[f"{name}_subtitles.jsonl"] = [
            {"vid_name": video.name, "sub": video.subtitles} for video in data.videos
        ]
        prefix = "" if name == "tv" else f"{name}_"  # TV's file is published without
        tables[f"{name}_vid2nframe.json"] = vid2nframe(data)
        if name != "vlep":  # published without
            tables[f"{prefix}vid2dur_idx.json"] = vid2dur_idx(data, options.seed)
    for split in ("train", "val"):
        tables[f"tv_pretrain_{split}.json"] = [v.name for v in datasets["tv"].splits[split]]
    _write_annotations(options, files, tables)
    jobs: dict[str, list[FeatureJob]] = {}
    for name in options.datasets:
        jobs |= feature_roots(datasets[name])
    return {name: len(rows) for name, rows in files.items()}, jobs


def _write_real(options: argparse.Namespace) -> tuple[dict[str, int], dict[str, list[FeatureJob]]]:
    corpus = make_real_corpus(
        options.tvr_annotations, options.video2dur, options.train_share, options.seed
    )
    files = {f"tvr_{split}.jsonl": rows for split, rows in corpus.queries.items()}
    files["tv_subtitles.jsonl"] = corpus.subtitles
    tables: dict[str, dict | list] = {
        "tv_vid2nframe.json": {job.name: job.frames for job in corpus.jobs},
        "vid2dur_idx.json": corpus.vid2dur_idx,
    }
    _write_annotations(options, files, tables)
    return {name: len(rows) for name, rows in files.items()}, {"tv": corpus.jobs}


def _write_annotations(
    options: argparse.Namespace, files: dict[str, list], tables: dict[str, dict | list]
) -> None:
    """Write the line-by-line files, the JSON tables, and a tokenizer of all their sentences."""
    ann, toker = options.output / "ann", options.output / "toker"
    for name, table in tables.items():
        write_once(write_json, ann / name, table)
    for name, rows in files.items():
        write_once(write_csv if name.endswith(".csv") else write_jsonl, ann / name, rows)
    if not (toker / "config.json").exists():  # the last file that it writes
        # Not on all texts, as RoBERTa's was not trained on HERO's pre-training data.
        unseen = tuple(f"{name}_" for name in (LONG_VIDEOS, *OF_VALUE, "yc2r", "yc2c"))
        known = (row for name in files if not name.startswith(unseen) for row in files[name])
        texts = (html.unescape(text) for row in known for text in texts_of(row))
        train_tokenizer(texts, options.toker_size, toker)


def write_once(write: Callable[[Path, Any], None], path: Path, content: Any) -> None:
    """Write a file unless it exists: it must not be newer than databases made from it."""
    if not path.exists():
        write(path, content)


if __name__ == "__main__":
    run_main(main)
