"""Convert subtitle files (.srt, .vtt, .ass) to the JSON lines that prepro_sub.py reads.

python scripts/convert_subtitles.py --input videos --output ann/subtitles.jsonl \
    --vid2nframe video_db/mine/id2nframe.json --language en

Writes a line {"vid_name", "sub": [{"text", "start", "end"}, …]} for every video with a file below
--input, times in seconds, sorted by start. A file belongs to the video of its name: movie.srt to
movie.mp4; with --language en, so do movie.en.srt, movie.eng.srt and movie.en-US.sdh.srt. Content
tells the format, whatever the ending. HTML and position tags are removed, line breaks become
spaces, empty subtitles are dropped. With --vid2nframe, videos without a file that can be used get
a line without subtitles, and files without a video are passed over.

Files that cannot be used, or were not as they should be, are listed at the end and in
<output>.failed.json: [{"file", "reason", "subtitles": how many were used}, …].
"""

import argparse
import dataclasses
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.prepare.folder_files import shown
from data.prepare.subtitle_encoding import require_encodings
from data.prepare.subtitle_files import SUFFIXES, read_subtitles
from data.prepare.subtitle_matching import SubtitleMatches, match_subtitles
from data.prepare.work import read_vid2nframe, script_parser
from utils.errors import UserError, run_main
from utils.files import check_output, write_json, write_jsonl

SHOWN = 20  # files in the table


class Report:
    """Notes what was wrong with files.

    Args:
        path: of the JSON file.
        unusable: files that were not read, and why.
    """

    def __init__(self, path: Path, unusable: dict[Path, str]) -> None:
        self._path = path
        self._rows = [(shown(file), reason, 0) for file, reason in unusable.items()]
        self.failed = len(self._rows)

    def fail(self, file: Path, reason: str) -> None:
        """Note a file that cannot be used."""
        self.failed += 1
        self._rows.append((shown(file), reason, 0))

    def note(self, file: Path, notes: list[str], used: int) -> None:
        """Note what is odd about a file of which so many subtitles were used."""
        if notes:
            self._rows.append((shown(file), "; ".join(notes), used))

    def write(self) -> None:
        """Print the table and write the file; remove that of an earlier run if all is well."""
        if not self._rows:
            self._path.unlink(missing_ok=True)
            return
        names = ("file", "reason", "subtitles")
        write_json(self._path, [dict(zip(names, row, strict=True)) for row in self._rows], indent=4)
        print(tabulate(self._rows[:SHOWN], names, disable_numparse=True))
        print(f"{len(self._rows)} files, {self.failed} of them not used: {self._path}")


def convert(
    matches: SubtitleMatches, films: Collection[str], encodings: list[str], report: Report
) -> Iterator[dict]:
    """The lines of all films, by name; of those that cannot be read where ``films`` has them."""
    for film in sorted({*matches.files, *films}):
        cues, file = [], matches.files.get(film)
        if file is not None:
            try:
                subtitles = read_subtitles(file, *encodings)
            except UserError as error:
                report.fail(file, str(error).removeprefix(f"{file}: "))
                if film not in films:
                    continue
            else:
                cues = subtitles.cues
                report.note(file, subtitles.notes, len(cues))
        yield {"vid_name": film, "sub": [dataclasses.asdict(cue) for cue in cues]}


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = script_parser(__doc__)
    parser.add_argument("--input", required=True, help="a subtitle file, or a folder of them")
    parser.add_argument("--output", required=True, help="JSON lines to write")
    parser.add_argument("--language", help="take files of this language: en for movie.en.srt")
    parser.add_argument(
        "--encoding",
        nargs="+",
        default=[],
        help="of files that are not UTF-8 and have no byte-order mark; of several, the first that "
        "reads a file (default: guessed)",
    )
    parser.add_argument(
        "--vid2nframe", help="{video: number of frames}, JSON: the videos there are"
    )
    return parser.parse_args(argv)


def require_files(source: Path, matches: SubtitleMatches) -> None:
    """Raise UserError where there is no file to read."""
    if matches.files or matches.failed:
        return
    if not matches.passed_over:
        kinds = ", ".join(SUFFIXES)
        raise UserError(f"{source} holds no subtitle files ({kinds}); mend --input")
    raise UserError(
        f"no subtitle file is of a video and language asked for: {'; '.join(matches.notes())}; "
        "name files as their videos (movie.srt, movie.en.srt), or pass another --language"
    )


def main(argv: list[str] | None = None) -> None:
    """Write the JSON lines."""
    options = parse_arguments(argv)
    require_encodings(options.encoding)
    report_path = Path(options.output).with_suffix(".failed.json")
    check_output(options.output, report_path)
    source = Path(options.input)
    if not source.exists():
        raise UserError(f"{source} does not exist; --input must be a subtitle file or a folder")
    films = read_vid2nframe([options.vid2nframe]) if options.vid2nframe else None
    matches = match_subtitles(source, films, options.language)
    require_files(source, matches)
    for note in matches.notes():
        print(note)
    report = Report(report_path, matches.failed)
    rows = list(convert(matches, films or (), options.encoding, report))
    report.write()
    if not matches.files or report.failed == len(matches.failed) + len(matches.files):
        raise UserError(f"none of {report.failed} subtitle files can be used: see {report_path}")
    write_jsonl(options.output, rows)
    silent = [row["vid_name"] for row in rows if row["vid_name"] not in matches.files]
    if silent:
        print(f"{len(silent)} videos have no subtitle file, such as {silent[0]}")
    print(f"{options.output}: {len(rows)} videos, {sum(len(row['sub']) for row in rows)} subtitles")


if __name__ == "__main__":
    run_main(main)
