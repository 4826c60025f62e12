"""Cut long videos into clips: subtitles, and the frame features of a database.

python scripts/cut_clips.py --annotation ann/ht_subtitles.jsonl --output ann/ht_clips.jsonl \
    --vfeat_db video_db/ht --clip_vfeat_db video_db/ht_clips --frame_length 2 [--clip_interval 60]

Video v of T frames becomes the clips v.0, v.1, … of --clip_interval seconds; the last one may be
shorter. Times of a clip's subtitles count from the clip's start; a subtitle over a cut is in both
clips. A clip without subtitles has a line with an empty list. Feature files of the extractors are
cut by scripts/convert_videodb.py --clip_interval; then only subtitles are cut here (--vid2nframe,
the id2nframe.json of every shard, instead of the two databases).
"""

import argparse
import math
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.annotations import get_spans, read_lines
from data.prepare.work import positive, read_vid2nframe, script_parser
from data.stores.build_folder import check_folder
from data.stores.lmdb_io import FeatureDb, FeatureDbWriter, feature_db_path
from data.video_pool import feature_name
from scripts.convert_videodb import VERSION, clip_names, frames_per_clip
from utils.errors import RecordError, UserError, run_main
from utils.files import check_output, write_jsonl
from utils.logger import LOGGER
from utils.names import get_name

DECIMALS = 3  # of times, in seconds
_CLIP_NUMBER = re.compile(r"0|[1-9]\d*", re.ASCII)


def cut_subtitles(subtitles: list[dict], num_clips: int, seconds: float) -> list[list[dict]]:
    """Return the subtitles of every clip, in order; parts after the last clip are dropped.

    Args:
        subtitles: ``{"text", "start", "end", …}`` in seconds of the video.
        num_clips: number of clips of the video.
        seconds: length of a clip.
    """
    clips: list[list[dict]] = [[] for _ in range(num_clips)]
    for subtitle in subtitles:
        start, end = subtitle["start"], subtitle["end"]
        first = max(0, math.floor(start / seconds))
        last = max(first, math.ceil(end / seconds) - 1)
        for number in range(first, min(last + 1, num_clips)):
            begin = number * seconds
            inside = {
                "start": round(start - begin if number == first else 0.0, DECIMALS),
                "end": round(min(end - begin, seconds), DECIMALS),
            }
            clips[number].append({**subtitle, **inside})
    return clips


def whole_videos(vid2nframe: dict[str, int], clip_frames: int) -> dict[str, int]:
    """Return the frames of whole videos, summing up those of clips ``<video>.<n>``.

    A video may have the name of another's clip, and be listed by its own clips: in a table of only
    clips these count; in any other the name itself does.

    Args:
        vid2nframe: frames of videos, of clips, or of both.
        clip_frames: of every clip but a video's last one.
    """
    clips: dict[str, dict[int, int]] = defaultdict(dict)
    for vid, frames in vid2nframe.items():
        stem, _, number = vid.rpartition(".")
        if stem and _CLIP_NUMBER.fullmatch(number):
            clips[stem][int(number)] = frames
    cut = {stem: frames for stem, frames in clips.items() if _are_clips(frames, clip_frames)}
    whole = {stem: sum(frames.values()) for stem, frames in cut.items()}
    if sum(map(len, cut.values())) == len(vid2nframe):
        return {**vid2nframe, **whole}
    return {**whole, **vid2nframe}


def _are_clips(frames: dict[int, int], clip_frames: int) -> bool:
    """Return whether these are all clips of a video: numbered from 0, and full but the last."""
    *full, last = (frames[number] for number in sorted(frames))
    are_all = max(frames) + 1 == len(frames)
    return are_all and set(full) <= {clip_frames} and 0 < last <= clip_frames


def cut_lines(
    annotation: str, vid2nframe: dict[str, int], clip_frames: int, seconds: float
) -> Iterator[dict]:
    """Yield the lines of the clips of every video.

    Raises:
        UserError: a line is no subtitles, or names a video without frames.
    """

    def read(raw: dict) -> tuple[str, list[dict]]:
        vid = feature_name(get_name(raw, "vid_name"), vid2nframe)
        if vid not in vid2nframe:
            raise RecordError(
                f"no frames of video {vid!r} are known, nor of its clips {vid}.0, {vid}.1, … of "
                f"{clip_frames} frames (--clip_interval / --frame_length)"
            )
        get_spans(raw)
        return vid, raw["sub"]

    for line in read_lines(annotation):
        vid, subtitles = line.read(read)
        names = clip_names(vid, vid2nframe[vid], clip_frames)
        for name, of_clip in zip(names, cut_subtitles(subtitles, len(names), seconds)):
            yield {"vid_name": name, "sub": of_clip}


def cut_features(source: FeatureDb, writer: FeatureDbWriter, clip_frames: int) -> dict[str, str]:
    """Write the clips of every video; return {video: why it has none}."""
    precision, failed = source.stored_dtype, {}
    for vid in tqdm(source.id2nframe, desc="features"):
        try:
            features = source[vid].astype(precision)
        except UserError as error:
            failed[vid] = str(error)
            continue
        if not len(features):
            failed[vid] = f"{source.path}: video {vid!r} has no frames"
        for number, name in enumerate(clip_names(vid, len(features), clip_frames)):
            writer.put(name, features[number * clip_frames : (number + 1) * clip_frames])
    return failed


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__)
    add = parser.add_argument
    add("--annotation", required=True, help="subtitles of whole videos, JSON lines")
    add("--output", required=True, help="subtitles of the clips")
    add("--vfeat_db", help="features of whole videos, e.g. video_db/ht")
    add("--clip_vfeat_db", help="features of the clips")
    add(
        "--vid2nframe",
        nargs="+",
        default=[],
        help="{video or clip: frames}, JSON, one or more (default: id2nframe.json in --vfeat_db)",
    )
    add("--frame_length", type=positive, default=2.0, help="seconds a frame (default: %(default)s)")
    add("--clip_interval", type=float, default=60.0, help="seconds per clip (default: %(default)s)")
    add("--compressed_db", action="store_true", help="read and write the compressed variant")
    add("--force", action="store_true", help="build the features of the clips again")
    options = parser.parse_args(argv)
    if not (options.vid2nframe or options.vfeat_db):
        raise UserError("give --vfeat_db, or --vid2nframe to cut subtitles only")
    if bool(options.vfeat_db) != bool(options.clip_vfeat_db):
        raise UserError("--vfeat_db and --clip_vfeat_db go together: give both or neither")
    return options


def main(argv: list[str] | None = None) -> None:
    """Cut what the command line names."""
    options = parse_arguments(argv)
    clip_frames = frames_per_clip(options.clip_interval, options.frame_length)
    if clip_frames is None:
        raise UserError(f"--clip_interval must be positive, not {options.clip_interval:g}")
    variant = (VERSION, options.frame_length, options.compressed_db)
    check_output(options.output)
    if options.clip_vfeat_db:
        check_folder(feature_db_path(Path(options.clip_vfeat_db), *variant), options.force)
    source = FeatureDb(options.vfeat_db, *variant) if options.vfeat_db else None
    if source is None or options.vid2nframe:
        vid2nframe = whole_videos(read_vid2nframe(options.vid2nframe), clip_frames)
    else:
        vid2nframe = source.id2nframe
    lines = cut_lines(options.annotation, vid2nframe, clip_frames, options.clip_interval)
    if source is None:
        write_jsonl(options.output, lines)
        return
    with FeatureDbWriter(options.clip_vfeat_db, *variant, force=options.force) as writer:
        failed = cut_features(source, writer, clip_frames)
        if len(failed) == len(source.id2nframe):
            raise UserError(f"no features can be cut: {next(iter(failed.values()))}")
        write_jsonl(options.output, lines)
    if failed:
        first = next(iter(failed.values()))
        LOGGER.warning("%d videos have no features and no clips (%s)", len(failed), first)


if __name__ == "__main__":
    run_main(main)
