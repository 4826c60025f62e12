"""Real TVR queries on synthetic videos: a query's words are seen, and heard, in its moment."""

import math
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.annotations import read_lines
from scripts.demo_corpus.features import FeatureJob
from scripts.demo_corpus.scenes import Span
from scripts.demo_corpus.words import stable_hash
from utils.errors import RecordError, UserError
from utils.files import read_json
from utils.names import QUERY_NAMES, get_name

INTERVAL = 1.5  # seconds per frame
_STOPWORDS = """a about after all an and are as at back be before by for from has have he her him
his in into is it its not of off on or out over she some something that the their them then there
they this to up was when where while who with"""
_CHATTER = "well you know i think we should really just get it done right now okay"
_LONGEST_LINE = 4  # words of the queries in one subtitle


@dataclass(frozen=True)
class RealCorpus:
    """Raw annotations to write, and the jobs of their feature files."""

    queries: dict[str, list[dict]]  # by split, unchanged
    subtitles: list[dict]
    vid2dur_idx: dict[str, dict[str, list]]
    jobs: list[FeatureJob]


def content_words(text: str) -> tuple[str, ...]:
    """Return the lower-cased words of a sentence but stopwords, each once."""
    words = (word.removesuffix("'s").strip("'") for word in re.findall(r"[a-z']+", text.lower()))
    return tuple(dict.fromkeys(word for word in words if word and word not in _STOPWORDS.split()))


def make_real_corpus(
    annotations: Path, video2dur: Path, train_share: float, seed: int
) -> RealCorpus:
    """Derive videos and subtitles from published TVR queries.

    Args:
        annotations: JSON lines with ``vid_name, ts, desc`` (and ``type``) of one split.
        video2dur: ``{split: {vid: [seconds, index]}}`` that names every video of the queries.
        train_share: of the videos; the rest is val.

    Raises:
        UserError: a query without a moment, or a video without a duration.
    """

    def read(row: dict) -> tuple[str, dict]:
        if not {"vid_name", "ts", "desc"} <= row.keys():
            raise RecordError("it has no vid_name, ts or desc: not a public split")
        return get_name(row, *QUERY_NAMES.videos), row

    queries: dict[str, list[dict]] = defaultdict(list)
    for line in read_lines(annotations):
        vid, row = line.read(read)
        queries[vid].append(row)
    lengths = {vid: entry for vids in read_json(video2dur).values() for vid, entry in vids.items()}
    missing = [vid for vid in queries if vid not in lengths]
    if missing:
        raise UserError(f"{video2dur} lacks {len(missing)} videos of {annotations}: {missing[0]} …")
    names = sorted(queries)
    shuffled = np.random.default_rng([seed, stable_hash("real split")]).permutation(len(names))
    train = {names[i] for i in shuffled[: round(train_share * len(names))]}
    parts = {"train": sorted(train), "val": [name for name in names if name not in train]}
    splits = {split: videos for split, videos in parts.items() if videos}
    return RealCorpus(
        {split: [row for vid in vids for row in queries[vid]] for split, vids in splits.items()},
        [_subtitles(vid, lengths[vid][0], queries[vid], seed) for vid in names],
        {split: {vid: lengths[vid] for vid in videos} for split, videos in splits.items()},
        [_job(vid, lengths[vid][0], queries[vid]) for vid in names],
    )


def _job(vid: str, duration: float, queries: list[dict]) -> FeatureJob:
    spans = tuple(Span(row["ts"][0], row["ts"][1], content_words(row["desc"])) for row in queries)
    return FeatureJob(vid, "tv", math.ceil(duration / INTERVAL), INTERVAL, spans)


def _subtitles(vid: str, duration: float, queries: list[dict], seed: int) -> dict:
    """Return lines with some words of the t and vt queries in their moments, and chatter."""
    rng = np.random.default_rng([seed, stable_hash(vid), stable_hash("subtitles")])
    lines = []
    start = rng.uniform(0.0, 2.0)
    while start < duration - 1.0:
        end = min(duration, start + rng.uniform(1.5, 4.0))
        heard = {
            word
            for row in queries
            if row.get("type") != "v" and row["ts"][0] < end and start < row["ts"][1]
            for word in content_words(row["desc"])
        }
        words = list(rng.permutation(sorted(heard))[:_LONGEST_LINE])
        chatter = list(rng.choice(_CHATTER.split(), rng.integers(2, 7)))
        text = " ".join([*chatter, *words])
        lines.append({"text": f" {text}.", "start": round(start, 3), "end": round(end, 3)})
        start = end + rng.exponential(0.7)
    return {"vid_name": vid, "sub": lines}
