"""Convert subtitle files (.srt, .vtt, .ass) to the JSON lines that prepro_sub.py reads.

python scripts/convert_subtitles.py --input videos --output ann/subtitles.jsonl \
    --vid2nframe video_db/mine/id2nframe.json

Writes a line {"vid_name", "sub": [{"text", "start", "end"}, …]} for every file below --input,
times in seconds, sorted by start. A file belongs to the video of its name: movie.srt to movie.mp4;
with --language en, so does movie.en.srt (and files of other languages are passed over). HTML and
position tags are removed, line breaks become spaces, empty subtitles are dropped. With
--vid2nframe, videos without a file get a line without subtitles, and files without a video are
left out.
"""

import argparse
import dataclasses
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.prepare.subtitle_files import DEFAULT_ENCODING, SUFFIXES, read_subtitles
from data.prepare.work import read_vid2nframe, script_parser
from utils.errors import UserError, brief, run_main
from utils.files import check_output, write_jsonl

# A language as in file names: en, eng, pt-BR, zh-Hans, en-orig.
LANGUAGE = re.compile(r"\.([a-z]{2,3})(-[A-Za-z0-9]+)*$")


def find_files(source: Path, language: str | None) -> dict[str, Path]:
    """{video: its subtitle file}.

    Args:
        source: a file, or a folder that is searched with all folders in it.
        language: of the files to take; None: a file's name is its video's.

    Raises:
        UserError: there are none, or two for one video.
    """
    files = [source] if source.is_file() else sorted(source.rglob("*"))
    found: dict[str, Path] = {}
    for path in files:
        if path.suffix.lower() not in SUFFIXES or path.name.startswith(".") or not path.is_file():
            continue
        vid = video_of(path, language)
        if vid is None:
            continue
        if not vid.isprintable():  # or bytes that are no text
            raise UserError(f"{brief(str(path))} cannot be the name of a video; rename the file")
        other = found.setdefault(vid, path)
        if other != path:
            raise UserError(
                f"{other} and {path} are both subtitles of video {vid!r}; keep one of them"
            )
    if not found:
        kinds = ", ".join(SUFFIXES)
        raise UserError(f"{source} holds no subtitle files ({kinds}); mend --input or --language")
    return found


def video_of(path: Path, language: str | None) -> str | None:
    """The video that a file belongs to; None for a file of another language."""
    suffix = LANGUAGE.search(path.stem)
    if language is None or suffix is None:
        return path.stem
    wanted = language == suffix[1] or path.stem.endswith(f".{language}")
    return path.stem[: suffix.start()] if wanted else None


def match_videos(files: dict[str, Path], vid2nframe: dict[str, int]) -> dict[str, Path | None]:
    """{video: its file or None}, of the videos that there are.

    Raises:
        UserError: no file belongs to any of them.
    """
    without_video = [path for vid, path in files.items() if vid not in vid2nframe]
    if len(without_video) == len(files):
        raise UserError(
            f"no subtitle file belongs to a video of --vid2nframe: {without_video[0].name} would "
            f"be that of {next(iter(files))!r}; name files as their videos, or pass --language"
        )
    for path in without_video:
        print(f"left out, there is no such video: {path}")
    silent = [vid for vid in vid2nframe if vid not in files]
    if silent:
        print(f"{len(silent)} videos have no subtitles, such as {silent[0]}")
    return {vid: files.get(vid) for vid in vid2nframe}


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = script_parser(__doc__)
    parser.add_argument("--input", required=True, help="a subtitle file, or a folder of them")
    parser.add_argument("--output", required=True, help="JSON lines to write")
    parser.add_argument("--language", help="take files of this language: en for movie.en.srt")
    parser.add_argument(
        "--encoding",
        nargs="+",
        default=[DEFAULT_ENCODING],
        help="of the files; of several, the first that reads a file (default: UTF-8)",
    )
    parser.add_argument(
        "--vid2nframe", help="{video: number of frames}, JSON: the videos there are"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Write the JSON lines."""
    options = parse_arguments(argv)
    check_output(options.output)
    source = Path(options.input)
    if not source.exists():
        raise UserError(f"{source} does not exist; --input must be a subtitle file or a folder")
    files: dict[str, Path | None] = dict(find_files(source, options.language))
    if options.vid2nframe:
        files = match_videos(files, read_vid2nframe([options.vid2nframe]))
    rows = []
    for vid in sorted(files):
        path = files[vid]
        cues = [] if path is None else read_subtitles(path, *options.encoding)
        rows.append({"vid_name": vid, "sub": [dataclasses.asdict(cue) for cue in cues]})
    write_jsonl(options.output, rows)
    print(f"{options.output}: {len(rows)} videos, {sum(len(row['sub']) for row in rows)} subtitles")


if __name__ == "__main__":
    run_main(main)
