"""Convert subtitle files (.srt, .vtt, .ass) to the JSON lines that prepro_sub.py reads.

python scripts/convert_subtitles.py --input videos --output ann/subtitles.jsonl \
    --vid2nframe video_db/mine/id2nframe.json --language en

Writes a line {"vid_name", "sub": [{"text", "start", "end"}, …]} for every video with a file below
--input, times in seconds, sorted by start. A file belongs to the video of its name: movie.srt to
movie.mp4; with --language en, so do movie.en.srt, movie.eng.srt and movie.en-US.sdh.srt. The format
is recognised by the content, not by the ending. HTML and position tags are removed, line breaks
become spaces, empty subtitles are dropped. With --vid2nframe, videos without a usable file get a
line without subtitles, and files without a video are passed over.

Files with problems are listed at the end and in <output>.failed.json: {file: {reason, subtitles,
used}}, the number of subtitles used, and whether the file was. Exit code 0: some file could be
used; 2: none.
"""

import argparse
import sys
from collections.abc import Collection, Iterator
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.prepare.problems import Problem, Problems
from data.prepare.subtitle_encoding import require_encodings
from data.prepare.subtitle_files import SUFFIXES, read_subtitles
from data.prepare.subtitle_matching import SubtitleMatches, match_subtitles
from data.prepare.work import read_vid2nframe, script_parser
from utils.errors import UserError, run_main
from utils.files import check_output, named_path, write_jsonl


def convert(
    matches: SubtitleMatches, films: Collection[str], encodings: list[str], problems: Problems
) -> Iterator[dict]:
    """Yield the lines of all films, by name; if a file cannot be read, only of ``films``."""
    for film in sorted({*matches.files, *films}):
        cues, file = [], matches.files.get(film)
        if file is not None:
            try:
                subtitles = read_subtitles(file, *encodings)
            except UserError as error:
                problems.note(file, Problem(str(error).removeprefix(f"{file}: ")))
                if film not in films:
                    continue
            else:
                cues = subtitles.cues
                if subtitles.notes:
                    problems.note(file, Problem("; ".join(subtitles.notes), len(cues), used=True))
        yield {"vid_name": film, "sub": [asdict(cue) for cue in cues]}


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__)
    add = parser.add_argument
    add("--input", required=True, help="a subtitle file, or a folder of them")
    add("--output", required=True, help="JSON lines to write")
    add("--language", help="take files of this language: en for movie.en.srt")
    add(
        "--encoding",
        nargs="+",
        default=[],
        help="of files that are not UTF-8 and have no byte-order mark; of several, the first that "
        "decodes a file (default: guessed)",
    )
    add("--vid2nframe", help="{video: number of frames}, JSON: the videos that exist")
    return parser.parse_args(argv)


def require_files(source: Path, matches: SubtitleMatches) -> None:
    """Raise UserError where there is no file to read."""
    if matches.files or matches.failed:
        return
    if not matches.passed_over:
        kinds = ", ".join(SUFFIXES)
        raise UserError(f"{source} holds no subtitle files ({kinds}); fix --input")
    raise UserError(
        f"no subtitle file is of a selected video and language: {'; '.join(matches.notes())}; "
        "name files as their videos (movie.srt, movie.en.srt), or pass another --language"
    )


def main(argv: list[str] | None = None) -> None:
    """Write the JSON lines."""
    options = parse_arguments(argv)
    require_encodings(options.encoding)
    report_path = named_path(options.output).with_suffix(".failed.json")
    check_output(options.output, report_path)
    source = Path(options.input)
    if not source.exists():
        raise UserError(f"{source} does not exist; --input must be a subtitle file or a folder")
    films = read_vid2nframe([options.vid2nframe]) if options.vid2nframe else None
    matches = match_subtitles(source, films, options.language)
    require_files(source, matches)
    for note in matches.notes():
        print(note)
    problems = Problems(report_path, "subtitles")
    for file, reason in matches.failed.items():
        problems.note(file, Problem(reason))
    rows = list(convert(matches, films or (), options.encoding, problems))
    problems.write()
    if report := problems.report():
        print(report)
    if problems.failures == len(matches.failed) + len(matches.files):
        raise UserError(
            f"{problems.first_failure}; none of {problems.failures} can be used: see {report_path}"
        )
    write_jsonl(options.output, rows)
    if without := [row["vid_name"] for row in rows if row["vid_name"] not in matches.files]:
        print(f"{len(without)} videos have no subtitle file, such as {without[0]}")
    print(f"{options.output}: {len(rows)} videos, {sum(len(row['sub']) for row in rows)} subtitles")


if __name__ == "__main__":
    run_main(main)
