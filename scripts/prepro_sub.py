"""Prepare a subtitle database: tokenised subtitles, and which frames belong to which.

python scripts/prepro_sub.py --annotation ann/tv_subtitles.jsonl --output txt_db/tv_subtitles.db \
    --vid2nframe video_db/tv/id2nframe.json --frame_length 1.5 --vid2dur_idx ann/vid2dur_idx.json

A line of the annotation: {"vid_name", "sub": [{"text", "start", "end"}, …]}, times in seconds,
in any order: they are sorted by their start. A video without subtitles has the line {"vid_name",
"sub": []}. Text is HTML-unescaped, then lower-cased if it is all upper case, then stripped of white
space around it.
"""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass, fields
from operator import add, attrgetter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.annotations import (
    Line,
    RecordError,
    UniqueIds,
    get_spans,
    get_text,
    subtitles_in_order,
)
from data.bpe_tokenizer import BpeTokenizer
from data.prepare.frame_matching import PSEUDO_SUBTITLE_FRAMES, FrameMatches, match_frames
from data.prepare.work import (
    add_frame_length,
    is_finished,
    map_lines,
    not_negative,
    pack_line,
    read_vid2nframe,
    text_parser,
)
from data.stores.build_folder import check_folder
from data.stores.lmdb_io import TextDbWriter
from data.tokenize import encode_texts, load_tokenizer, normalize_subtitle, tokenizer_meta
from data.video_indices import require_indices
from data.video_pool import feature_name
from utils.errors import UserError, run_main
from utils.files import read_json
from utils.logger import LOGGER
from utils.names import get_name


@dataclass(frozen=True, slots=True)
class SubtitledVideo:
    """The subtitles of a video, not tokenised yet."""

    raw: dict  # the parsed line
    vid: str  # the video
    num_frames: int  # T
    texts: list[str]  # normalised, one per subtitle
    spans: list[tuple[float, float]]  # (start, end) in seconds, one per subtitle


@dataclass(frozen=True, slots=True)
class SubtitleFacts:
    """What may be suspicious about the subtitles of one or more videos.

    Attributes:
        videos: that have subtitles.
        subtitles, texts, shown: how many there are, with tokens, with frames.
        as_frames: videos whose times could be numbers of frames, the last of them at the end.
    """

    videos: int = 0
    subtitles: int = 0
    texts: int = 0
    shown: int = 0
    as_frames: int = 0

    @classmethod
    def of(
        cls, video: SubtitledVideo, input_ids: list[list[int]], frames: Iterable[list[int]]
    ) -> "SubtitleFacts":
        """Those of one video; ``frames`` are those of each subtitle."""
        if not video.spans:
            return cls()
        times = [time for span in video.spans for time in span]
        whole = all(time == int(time) for time in times)
        at_end = 0.9 * video.num_frames <= max(times) <= video.num_frames
        return cls(
            *(1, len(video.spans), sum(map(bool, input_ids))),
            sum(map(bool, frames)),
            int(whole and at_end),
        )

    def __add__(self, other: "SubtitleFacts") -> "SubtitleFacts":
        return SubtitleFacts(*map(add, _COUNTS(self), _COUNTS(other)))

    def warn(self, where: str, frame_length: float) -> None:
        """Say what is suspicious as a whole."""
        late = self.subtitles - self.shown
        if not self.subtitles:
            LOGGER.warning("%s: no subtitles: none of its videos has any", where)
        elif not self.texts:
            LOGGER.warning("%s: all %d subtitles are empty", where, self.subtitles)
        if 2 * late > self.subtitles:
            LOGGER.warning(
                "%s: only %d of %d subtitles meet a frame of their video: times must be seconds; "
                "are these milliseconds, or frames?",
                *(where, self.shown, self.subtitles),
            )
        elif frame_length != 1 and 2 * self.as_frames > max(self.videos, 4):
            LOGGER.warning(
                "%s: the times of %d of %d videos are whole numbers that end with the number of "
                "frames: times must be seconds; are these frames?",
                *(where, self.as_frames, self.videos),
            )


_COUNTS = attrgetter(*(field.name for field in fields(SubtitleFacts)))


@dataclass(frozen=True, slots=True)
class PreparedVideo:
    """Subtitles as stored.

    Attributes:
        line, vid, num_frames: as of the video.
        max_len: the maximum of tokens + frames over them.
        value: the record.
        facts: what they are like.
    """

    line: Line
    vid: str
    num_frames: int
    max_len: int
    value: bytes
    facts: "SubtitleFacts"


class SubtitlePreparer:
    """Tokenise subtitles and match them with frames.

    Args:
        tokenizer: RoBERTa's.
        vid2nframe: frames per video.
        frame_length: seconds per frame.
        only_available: leave out videos that are not among them.
        group: frames of a pseudo-subtitle, where a video has none.
    """

    def __init__(
        self,
        tokenizer: BpeTokenizer,
        vid2nframe: dict[str, int],
        frame_length: float,
        only_available: bool = False,
        group: int = PSEUDO_SUBTITLE_FRAMES,
    ) -> None:
        self._tokenizer = tokenizer
        self._vid2nframe = vid2nframe
        self._frame_length = frame_length
        self._only_available = only_available
        self._group = group

    def __call__(self, lines: list[Line]) -> list[PreparedVideo | None]:
        """The stored form of each line; None of one that is left out."""
        read = [(line, line.read(self._read)) for line in lines]
        prepared = iter(self._prepare([(line, video) for line, video in read if video is not None]))
        return [None if video is None else next(prepared) for _, video in read]

    def _prepare(self, read: list[tuple[Line, SubtitledVideo]]) -> list[PreparedVideo]:
        videos = [video for _, video in read]
        texts = [text for video in videos for text in video.texts]
        encoded = iter(encode_texts(self._tokenizer, texts))
        matches = match_frames(
            [video.spans for video in videos],
            [video.num_frames for video in videos],
            self._frame_length,
            self._group,
        )
        return [
            _prepare(line, video, [next(encoded) for _ in video.texts], matched)
            for (line, video), matched in zip(read, matches, strict=True)
        ]

    def _read(self, raw: dict) -> SubtitledVideo | None:
        vid = feature_name(get_name(raw, "vid_name"), self._vid2nframe)
        if vid not in self._vid2nframe:
            if self._only_available:
                return None
            raise RecordError(
                f"--vid2nframe has no frames of video {vid!r}; --only_available leaves such videos "
                "out"
            )
        raw = subtitles_in_order(raw)
        texts = [normalize_subtitle(get_text(sub, "text")) for sub in raw["sub"]]
        return SubtitledVideo(raw, vid, self._vid2nframe[vid], texts, get_spans(raw))


def _prepare(
    line: Line, video: SubtitledVideo, input_ids: list[list[int]], matched: FrameMatches
) -> PreparedVideo:
    input_ids = input_ids or [[] for _ in matched.sub2frames]  # pseudo-subtitles say nothing
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
    facts = SubtitleFacts.of(video, input_ids, (frames for _, frames in matched.unique_sub2frames))
    value = pack_line(line, record)
    return PreparedVideo(line, video.vid, video.num_frames, max_len, value, facts)


def write_subtitles(options: argparse.Namespace, meta: dict, sides: dict) -> None:
    """Build the database ``options.output`` with the side files given and its own."""
    tokenizer = load_tokenizer(options.toker)
    frames = read_vid2nframe(options.vid2nframe)
    group = options.nframe_group
    prepare = SubtitlePreparer(
        *(tokenizer, frames, options.frame_length),
        only_available=options.only_available or group is not None,
        group=PSEUDO_SUBTITLE_FRAMES if group is None else group,
    )
    ids, vid2len, vid2max_len, facts, left_out = UniqueIds(), {}, {}, SubtitleFacts(), 0
    with TextDbWriter(options.output, force=True) as db:
        for video in map_lines(prepare, options.annotation, options.workers):
            if video is None:
                left_out += 1
                continue
            ids.claim(video.vid, video.line)
            db.put_value(video.vid, video.value)
            vid2len[video.vid] = video.num_frames
            vid2max_len[video.vid] = video.max_len
            facts += video.facts
        sides = {**sides, "vid2len.json": vid2len, "vid2max_frame_sub_len.json": vid2max_len}
        for name, value in sides.items():
            db.write_side(name, value)
        db.write_side("meta.json", {**meta, **tokenizer_meta(tokenizer)}, indent=4)
        if not vid2len:
            raise UserError(
                f"--vid2nframe has none of the {left_out} videos of {options.annotation}"
            )
    if left_out:
        counts = left_out, left_out + len(vid2len), options.annotation
        LOGGER.warning("%d of %d videos of %s have no features: they are left out", *counts)
    facts.warn(options.annotation, options.frame_length)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = text_parser(__doc__)
    parser.add_argument(
        "--vid2nframe",
        required=True,
        nargs="+",
        help="{video: number of frames}, JSON; with features in shards, the file of each",
    )
    add_frame_length(parser)
    parser.add_argument(
        "--vid2dur_idx", help="{split: {video: [seconds, index]}}, JSON; kept with the database"
    )
    parser.add_argument(
        "--only_available",
        action="store_true",
        help="leave out videos that --vid2nframe does not have",
    )
    parser.add_argument(
        "--nframe_group",
        type=not_negative,
        help="frames of a pseudo-subtitle of a video without subtitles, 0: such videos have none "
        f"(not given: {PSEUDO_SUBTITLE_FRAMES}); as VALUE has it, videos without features are "
        "then left out",
    )
    parser.add_argument("--task", default="tv", help="kept in meta.json (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Build the database unless it is made already."""
    options = parse_arguments(argv)
    names = ("annotation", "vid2nframe", "frame_length", "output", "toker", "task")
    recipe = {name: getattr(options, name) for name in names}
    if len(options.vid2nframe) == 1:
        recipe["vid2nframe"] = options.vid2nframe[0]  # as published
    for name in ("only_available", "nframe_group"):
        if getattr(options, name) not in (None, False):
            recipe[name] = getattr(options, name)
    sides = {}
    if options.vid2dur_idx:
        sides["vid2dur_idx.json"] = read_json(options.vid2dur_idx)
        require_indices(sides["vid2dur_idx.json"], options.vid2dur_idx)
    inputs = [options.annotation, *options.vid2nframe]
    if not options.force and is_finished(Path(options.output), recipe, inputs, sides=sides):
        return
    check_folder(options.output, force=True)
    write_subtitles(options, {**recipe, "tokenizer": options.toker}, sides)


if __name__ == "__main__":
    run_main(main)
