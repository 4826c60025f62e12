"""Prepare a caption database (TVC): tokenised captions and clips of one split.

python scripts/prepro_tvc.py --annotation ann/tvc_val_release.jsonl \
    --subtitles ann/tv_subtitles.jsonl --output txt_db/tvc_val.db

A line of the annotation: {"vid_name", "duration", "ts": [start, end], "clip_id",
"descs": [{"desc", "desc_id", …}, …]}; a test split has no descs. Captions are tokenised as they
are, without white space around them. The database has two parts, cap.db (captions) and clip.db
(clips with their captions).
"""

import argparse
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.annotations import (
    Line,
    UniqueIds,
    get_spans,
    get_text,
    is_seconds,
    is_span,
    read_lines,
    subtitles_in_order,
)
from data.bpe_tokenizer import BpeTokenizer
from data.moments import refuse_clamped, warn_of_units
from data.prepare.work import encode_groups, map_lines, needs_build, pack_line, text_parser
from data.stores.build_folder import build_folder
from data.stores.lmdb_io import TextDbWriter
from data.tokenize import load_tokenizer, tokenizer_meta
from utils.errors import RecordError, UserError, run_main
from utils.files import write_json
from utils.logger import LOGGER
from utils.names import get_name

PARTS = ("cap.db", "clip.db")

Spans = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip of a video."""

    clip_id: str  # its id
    vid: str  # the video
    ts: list[float]  # [start, end] in seconds
    duration: float  # of the video, in seconds
    captions: list[dict]  # raw, [] in a test split
    texts: list[str]  # of the captions
    cap_ids: list[str]  # of the captions, as strings


def read_clip(raw: dict) -> Clip:
    """Return the clip that a line describes."""
    if not is_span(raw.get("ts")) or not is_seconds(raw.get("duration")):
        raise RecordError("ts must be [start, end], and duration a time, in seconds")
    refuse_clamped(raw["ts"])
    captions = raw.get("descs", [])
    if not isinstance(captions, list) or not all(isinstance(cap, dict) for cap in captions):
        raise RecordError("descs must be a list of {desc, desc_id}")
    texts = [get_text(caption, "desc") for caption in captions]
    cap_ids = [get_name(caption, "desc_id") for caption in captions]
    clip_id, vid = get_name(raw, "clip_id"), get_name(raw, "vid_name")
    return Clip(clip_id, vid, raw["ts"], raw["duration"], captions, texts, cap_ids)


@dataclass(frozen=True, slots=True)
class PreparedClip:
    """A clip and its captions, (id, value) each, as stored."""

    line: Line
    clip: Clip
    value: bytes
    captions: list[tuple[str, bytes]]
    tokens: int  # of all captions


@dataclass(frozen=True)
class ClipPreparer:
    """Tokenises captions and finds the subtitles of their clips."""

    tokenizer: BpeTokenizer
    spans: dict[str, Spans]  # per video, (start, end) of its subtitles in seconds

    def __call__(self, lines: list[Line]) -> list[PreparedClip]:
        """Return the stored form of each line."""
        clips = [line.read(read_clip) for line in lines]
        encoded = encode_groups(self.tokenizer, [clip.texts for clip in clips])
        return list(map(self._prepare, lines, clips, encoded))

    def _prepare(self, line: Line, clip: Clip, input_ids: list[list[int]]) -> PreparedClip:
        video, (start, end) = {"vid_name": clip.vid}, clip.ts
        spans = enumerate(self.spans.get(clip.vid, []))
        overlapping = [index for index, span in spans if span[0] < end and span[1] > start]
        moment = {"ts": clip.ts, "sub_indices": overlapping, "duration": clip.duration}
        captions = [
            {**raw, "input_ids": ids, **video, "clip_id": clip.clip_id, **moment}
            for raw, ids in zip(clip.captions, input_ids, strict=True)
        ]
        parts = [
            {"id": caption["desc_id"], "input_ids": caption["input_ids"], "text": caption["desc"]}
            for caption in captions
        ]
        values = [pack_line(line, caption) for caption in captions]
        value = pack_line(line, {**video, **moment, "captions": parts})
        cap_values = list(zip(clip.cap_ids, values, strict=True))
        return PreparedClip(line, clip, value, cap_values, sum(map(len, input_ids)))


def read_spans(path: str) -> dict[str, Spans]:
    """Return the spans of all subtitles, by video.

    Raises:
        UserError: the file is unreadable, a line malformed, or a video is there twice.
    """

    spans: dict[str, Spans] = {}
    ids = UniqueIds()
    for line in read_lines(path):
        vid, of_video = line.read(
            lambda raw: (get_name(raw, "vid_name"), get_spans(subtitles_in_order(raw)))
        )
        ids.claim(vid, line)
        spans[vid] = of_video
    return spans


class CaptionIndex:
    """The side files: captions and clips of each video, and the video of each."""

    def __init__(self) -> None:
        self._clip_ids, self._cap_ids = UniqueIds(), UniqueIds()
        self.cap2vid: dict[str, str] = {}
        self.clip2vid: dict[str, str] = {}
        self.vid2caps: dict[str, list[str]] = defaultdict(list)
        self.vid2clips: dict[str, list[str]] = defaultdict(list)

    def add(self, clip: Clip, line: Line) -> None:
        """Index a clip; UserError if its id or one of its captions' was used before."""
        self._clip_ids.claim(clip.clip_id, line)
        self.clip2vid[clip.clip_id] = clip.vid
        self.vid2clips[clip.vid].append(clip.clip_id)
        for cap_id in clip.cap_ids:
            self._cap_ids.claim(cap_id, line)
            self.cap2vid[cap_id] = clip.vid
            self.vid2caps[clip.vid].append(cap_id)


def write_captions(options: argparse.Namespace, meta: dict[str, Any]) -> None:
    """Build the database ``options.output``."""
    tokenizer = load_tokenizer(options.toker)
    spans = read_spans(options.subtitles)
    index, tokens, moments = CaptionIndex(), 0, []
    with build_folder(options.output, force=True) as folder:
        with TextDbWriter(folder / "cap.db") as caps, TextDbWriter(folder / "clip.db") as clips:
            prepare = ClipPreparer(tokenizer, spans)
            for prepared in map_lines(prepare, options.annotation, options.workers):
                clip = prepared.clip
                index.add(clip, prepared.line)
                tokens += prepared.tokens
                moments.append((clip.ts, clip.duration))
                clips.put_value(clip.clip_id, prepared.value)
                for cap_id, value in prepared.captions:
                    caps.put_value(cap_id, value)
            caps.write_side("cap2vid.json", index.cap2vid)
            caps.write_side("vid2caps.json", index.vid2caps)
            caps.write_side("id2len.json", {})  # empty in the published databases, too
            clips.write_side("clip2vid.json", index.clip2vid)
            clips.write_side("vid2clips.json", index.vid2clips)
        if spans.keys().isdisjoint(index.vid2clips):
            raise UserError(
                f"{options.subtitles} has no video of {options.annotation}; give its --subtitles"
            )
        write_json(folder / "meta.json", {**meta, **tokenizer_meta(tokenizer)}, indent=4)
    warn_of_units(moments, options.annotation)
    if index.cap2vid and not tokens:
        LOGGER.warning("%s: all %d captions are empty", options.annotation, len(index.cap2vid))


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = text_parser(__doc__)
    parser.add_argument("--subtitles", required=True, help="JSON lines, as for prepro_sub.py")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Build the database unless it is made already."""
    options = parse_arguments(argv)
    names = ("annotation", "subtitles", "output", "toker")
    recipe = {name: getattr(options, name) for name in names}
    if needs_build(options, recipe, [options.annotation, options.subtitles], PARTS):
        write_captions(options, {**recipe, "tokenizer": options.toker})


if __name__ == "__main__":
    run_main(main)
