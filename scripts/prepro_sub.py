"""Prepare a subtitle database: tokenised subtitles, and which frames belong to which.

python scripts/prepro_sub.py --annotation ann/tv_subtitles.jsonl --output txt_db/tv_subtitles.db \
    --vid2nframe video_db/tv/id2nframe.json --frame_length 1.5 --vid2dur_idx ann/vid2dur_idx.json

A line of the annotation: {"vid_name", "sub": [{"text", "start", "end"}, …]}, times in seconds,
in any order: they are sorted by their start. A video without subtitles has the line {"vid_name",
"sub": []}. Text is HTML-unescaped, then lower-cased if it is all upper case, then stripped of white
space around it. Videos without features (not in --vid2nframe) are left out, and counted.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.annotations import Line, UniqueIds, get_spans, get_text, subtitles_in_order
from data.bpe_tokenizer import BpeTokenizer
from data.prepare.frame_matching import PSEUDO_SUBTITLE_FRAMES, FrameMatches, match_frames
from data.prepare.work import (
    add_frame_length,
    encode_groups,
    map_lines,
    needs_build,
    not_negative,
    pack_line,
    read_vid2nframe,
    text_parser,
)
from data.stores.lmdb_io import TextDbWriter
from data.tokenize import load_tokenizer, normalize_subtitle, tokenizer_meta
from data.video_indices import require_indices
from data.video_pool import feature_name
from utils.errors import UserError, brief, run_main
from utils.files import read_json
from utils.logger import LOGGER
from utils.names import get_name


@dataclass(frozen=True, slots=True)
class SubtitledVideo:
    """The subtitles of a video, not tokenised yet."""

    raw: dict  # the parsed line
    vid: str
    num_frames: int  # T
    texts: list[str]  # normalised, one per subtitle
    spans: list[tuple[float, float]]  # (start, end) in seconds, one per subtitle


@dataclass(frozen=True, slots=True)
class PreparedVideo:
    """Subtitles as stored."""

    line: Line
    vid: str
    num_frames: int
    max_len: int  # the maximum of tokens + frames over the subtitles
    value: bytes  # the record
    counts: Counter[str]  # see :func:`count_subtitles`


def count_subtitles(
    video: SubtitledVideo, input_ids: list[list[int]], frames: Iterable[list[int]]
) -> Counter[str]:
    """Count a video's subtitles, for :func:`warn_of_times`.

    Args:
        video: the video.
        input_ids: tokens of each subtitle.
        frames: frames of each subtitle.

    Returns:
        ``subtitles``, those with ``tokens``, those with ``frames``; ``videos`` with subtitles, and
        those whose times could be numbers of frames (``in_frames``): whole, the last at the end.
    """
    if not video.spans:
        return Counter()
    times = [time for span in video.spans for time in span]
    total = video.num_frames
    return Counter(
        videos=1,
        subtitles=len(video.spans),
        tokens=sum(map(bool, input_ids)),
        frames=sum(map(bool, frames)),
        in_frames=all(time == int(time) for time in times) and 0.9 * total <= max(times) <= total,
    )


def warn_of_times(counts: Counter[str], where: str, frame_length: float) -> None:
    """Warn if all subtitles are empty, or their times seem to be in another unit."""
    total = counts["subtitles"]
    if not total:
        LOGGER.warning("%s: no subtitles: none of its videos has any", where)
    elif not counts["tokens"]:
        LOGGER.warning("%s: all %d subtitles are empty", where, total)
    if 2 * counts["frames"] < total:
        LOGGER.warning(
            "%s: only %d of %d subtitles meet a frame of their video: times must be seconds; "
            "are these milliseconds, or frames?",
            *(where, counts["frames"], total),
        )
    elif frame_length != 1 and 2 * counts["in_frames"] > max(counts["videos"], 4):
        LOGGER.warning(
            "%s: the times of %d of %d videos are whole numbers that end with the number of "
            "frames: times must be seconds; are these frames?",
            *(where, counts["in_frames"], counts["videos"]),
        )


@dataclass(frozen=True)
class SubtitlePreparer:
    """Tokenises subtitles and matches them with frames."""

    tokenizer: BpeTokenizer
    vid2nframe: dict[str, int]  # frames per video
    frame_length: float  # seconds per frame
    group: int  # frames of a pseudo-subtitle, where a video has none

    def __call__(self, lines: list[Line]) -> list[PreparedVideo | str]:
        """Return the stored form of each line; the name of a video without features."""
        videos = [line.read(self._read) for line in lines]
        used = [video for video in videos if isinstance(video, SubtitledVideo)]
        encoded = iter(encode_groups(self.tokenizer, [video.texts for video in used]))
        spans, frames = [video.spans for video in used], [video.num_frames for video in used]
        matches = iter(match_frames(spans, frames, self.frame_length, self.group))
        return [
            video if isinstance(video, str) else _prepare(line, video, next(encoded), next(matches))
            for line, video in zip(lines, videos, strict=True)
        ]

    def _read(self, raw: dict) -> SubtitledVideo | str:
        vid = feature_name(get_name(raw, "vid_name"), self.vid2nframe)
        if vid not in self.vid2nframe:
            return vid
        raw = subtitles_in_order(raw)
        texts = [normalize_subtitle(get_text(sub, "text")) for sub in raw["sub"]]
        return SubtitledVideo(raw, vid, self.vid2nframe[vid], texts, get_spans(raw))


def _prepare(
    line: Line, video: SubtitledVideo, input_ids: list[list[int]], matched: FrameMatches
) -> PreparedVideo:
    input_ids = input_ids or [[] for _ in matched.sub2frames]  # pseudo-subtitles have no text
    lengths = zip(input_ids, matched.sub2frames, strict=True)
    max_len = max((len(tokens) + len(frames) for tokens, (_, frames) in lengths), default=0)
    record = {
        **video.raw,
        "unmatched_frames": matched.unmatched_frames,
        "input_ids": input_ids,
        "unique_sub2frames": matched.unique_sub2frames,
        "sub2frames": matched.sub2frames,
        "v_id": video.vid,
        "duration": video.num_frames,
        "max_mtached_sub_len": max_len,
    }
    counts = count_subtitles(video, input_ids, (frames for _, frames in matched.unique_sub2frames))
    value = pack_line(line, record)
    return PreparedVideo(line, video.vid, video.num_frames, max_len, value, counts)


def write_subtitles(options: argparse.Namespace, meta: dict, sides: dict) -> None:
    """Build the database ``options.output`` with the side files given and its own."""
    tokenizer = load_tokenizer(options.toker)
    frames = read_vid2nframe(options.vid2nframe)
    group = PSEUDO_SUBTITLE_FRAMES if options.nframe_group is None else options.nframe_group
    prepare = SubtitlePreparer(tokenizer, frames, options.frame_length, group)
    ids, vid2len, vid2max_len = UniqueIds(), {}, {}
    counts: Counter[str] = Counter()
    left_out: list[str] = []
    with TextDbWriter(options.output, force=True) as db:
        for video in map_lines(prepare, options.annotation, options.workers):
            if isinstance(video, str):
                left_out.append(video)
                continue
            ids.claim(video.vid, video.line)
            db.put_value(video.vid, video.value)
            vid2len[video.vid] = video.num_frames
            vid2max_len[video.vid] = video.max_len
            counts.update(video.counts)
        sides = {**sides, "vid2len.json": vid2len, "vid2max_frame_sub_len.json": vid2max_len}
        for name, value in sides.items():
            db.write_side(name, value)
        db.write_side("meta.json", {**meta, **tokenizer_meta(tokenizer)}, indent=4)
        if not vid2len:
            raise UserError(
                f"--vid2nframe has none of the {len(left_out)} videos of {options.annotation}"
            )
    if left_out:
        LOGGER.warning(
            "%d of %d videos of %s have no features (--vid2nframe): they are left out, such as %s",
            *(len(left_out), len(left_out) + len(vid2len), options.annotation, brief(left_out[0])),
        )
    warn_of_times(counts, options.annotation, options.frame_length)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = text_parser(__doc__)
    add = parser.add_argument
    add(
        "--vid2nframe",
        required=True,
        nargs="+",
        help="{video: number of frames}, JSON; with features in shards, the file of each",
    )
    add_frame_length(parser)
    add("--vid2dur_idx", help="{split: {video: [seconds, index]}}, JSON; kept with the database")
    add("--only_available", action="store_true", help=argparse.SUPPRESS)  # the only behaviour now
    add(
        "--nframe_group",
        type=not_negative,
        help="frames of a pseudo-subtitle of a video without subtitles, 0: such videos have none "
        f"(default: {PSEUDO_SUBTITLE_FRAMES})",
    )
    add("--task", default="tv", help="kept in meta.json (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Build the database unless it is made already."""
    options = parse_arguments(argv)
    names = ("annotation", "vid2nframe", "frame_length", "output", "toker", "task")
    recipe = {name: getattr(options, name) for name in names}
    if len(options.vid2nframe) == 1:
        recipe["vid2nframe"] = options.vid2nframe[0]  # as published
    if options.nframe_group is not None:
        recipe["nframe_group"] = options.nframe_group
    sides = {}
    if options.vid2dur_idx:
        sides["vid2dur_idx.json"] = read_json(options.vid2dur_idx)
        require_indices(sides["vid2dur_idx.json"], options.vid2dur_idx)
    inputs = [options.annotation, *options.vid2nframe]
    if needs_build(options, recipe, inputs, sides=sides):
        write_subtitles(options, {**recipe, "tokenizer": options.toker}, sides)


if __name__ == "__main__":
    run_main(main)
