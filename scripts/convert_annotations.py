"""Convert published annotations to the JSON lines that prepro_query.py reads.

python scripts/convert_annotations.py --task how2qa --annotation how2QA_val_release.csv \
    --output ann/how2qa_val.jsonl

How2R (CSV): video, clip [start:end], moment [start:end], query
How2QA (CSV): video, moment [start:end], three wrong answers, question, right answer
DiDeMo (JSON): [{"annotation_id", "description", "video", "times": [[first, last], …]}, …],
  times in segments of five seconds, one per annotator

Videos of How2 are cut into clips of 60 seconds, <video>.<n>: times become relative to the clip (of
How2QA: the one in which the moment starts). The right answer of a question gets a random index
(--seed), each equally often. DiDeMo's target is the moment that most annotators chose, the first of
equals. Moments that are negative or end before they start are left out, and counted.
"""

import argparse
import csv
import random
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.annotations import is_span
from data.moments import NAMED, agreed_moment, is_clamped
from data.prepare.work import script_parser
from data.stores.records import MAX_FRAMES, Name
from utils.decoding import check
from utils.errors import RecordError, UserError, brief, run_main
from utils.files import check_output, read_json, write_jsonl

CLIP_SECONDS = 60
SEGMENT_SECONDS = 5
NUM_ANSWERS = 4
DECIMALS = 6  # of seconds: subtraction adds digits

Segment = Annotated[int, msgspec.Meta(ge=-MAX_FRAMES, le=MAX_FRAMES)]

_SPAN = re.compile(r"\[\s*(\d+(?:\.\d+)?)\s*:\s*(\d+(?:\.\d+)?)\s*\]")


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a published CSV file."""

    where: str  # file and line
    index: int  # from 0
    cells: list[str]


# Annotations; or, as text, moments that are negative or end before they start, which are left out.
Converted = Iterator[dict | str]


def read_csv(path: str, num_cells: int) -> Iterator[Row]:
    """Yield the rows of a CSV file without a header; empty ones are skipped.

    Raises:
        UserError: the file is missing or no UTF-8 text, or a row has another number of cells.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            rows = (cells for cells in reader if cells)
            for index, cells in enumerate(rows):
                where = f"{path}:{reader.line_num}"
                if len(cells) != num_cells:
                    raise UserError(f"{where} has {len(cells)} cells instead of {num_cells}")
                yield Row(where, index, [cell.strip() for cell in cells])
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no CSV file in UTF-8 ({error})") from None


def parse_span(row: Row, cell: str) -> tuple[float, float]:
    """Return (start, end) in seconds of "[start:end]".

    Raises:
        UserError: the cell is something else.
    """
    match = _SPAN.fullmatch(cell)
    if match is None:
        raise UserError(
            f"{row.where}: {brief(cell)} is no [start:end] in seconds; fix or remove it"
        )
    start, end = map(float, match.groups())
    if not is_span([start, end]):
        raise UserError(f"{row.where}: {brief(cell)} is no time of a video; fix or remove it")
    return start, end


def convert_how2r(path: str, _seed: int) -> Converted:
    """Convert How2R: one moment query per row."""
    for row in read_csv(path, 4):
        video, clip, moment, query = row.cells
        clip_start, clip_end = parse_span(row, clip)
        start, end = parse_span(row, moment)
        if clip_start % CLIP_SECONDS:
            raise UserError(
                f"{row.where}: clip {brief(clip)} does not start at a multiple of 60 seconds"
            )
        ts = [round(time - clip_start, DECIMALS) for time in (start, end)]
        if is_clamped(ts):
            yield f"{row.where} [{ts[0]:g}, {ts[1]:g}]"
            continue
        yield {
            "vid_name": f"{video}.{int(clip_start // CLIP_SECONDS)}",
            "duration": clip_end - clip_start,
            "ts": ts,
            "desc": query,
            "desc_id": row.index,
        }


def convert_how2qa(path: str, seed: int) -> Converted:
    """Convert How2QA: one question per row, its right answer at a random index."""
    rows = list(read_csv(path, 7))
    indices = [k % NUM_ANSWERS for k in range(len(rows))]  # each equally often, or once more
    random.Random(seed).shuffle(indices)
    for row, index in zip(rows, indices, strict=True):
        video, moment, *wrong, question, right = row.cells
        start, end = parse_span(row, moment)
        if is_clamped((start, end)):
            yield f"{row.where} [{start:g}, {end:g}]"
            continue
        clip = int(start // CLIP_SECONDS)
        answers = [*wrong[:index], right, *wrong[index:]]
        ts = [str(round(time - clip * CLIP_SECONDS, DECIMALS)) for time in (start, end)]
        yield {
            "qid": row.index,
            "q": question,
            **{f"a{k}": answer for k, answer in enumerate(answers)},
            "ts": "-".join(ts),
            "vid_name": f"{video}.{clip}",
            "answer_idx": index,
        }


class DidemoAnnotation(msgspec.Struct):
    """A record of DiDeMo; ``times`` are the first and last segment, by annotator."""

    annotation_id: Name
    description: str
    video: Name
    times: Annotated[list[tuple[Segment, Segment]], msgspec.Meta(min_length=1)]


def convert_didemo(path: str, _seed: int) -> Converted:
    """Convert DiDeMo: one description per record, with the moments of all its annotators."""
    for number, raw in enumerate(read_json(path, list[Any]), start=1):
        try:
            record = check(raw, DidemoAnnotation)
        except RecordError as error:
            raise UserError(f"{path}: record {number}: {error}; fix or remove it") from None
        valid = [segments for segments in record.times if not is_clamped(segments)]
        moments = [[a * SEGMENT_SECONDS, (b + 1) * SEGMENT_SECONDS] for a, b in valid]
        invalid = (segments for segments in record.times if is_clamped(segments))
        yield from (f"record {number} [{first:g}, {last:g}]" for first, last in invalid)
        if moments:
            yield {
                "vid_name": record.video,
                "ts": moments,
                "target": agreed_moment(moments),
                "desc": record.description,
                "desc_id": record.annotation_id,
            }


CONVERTERS: dict[str, Callable[[str, int], Converted]] = {
    "how2r": convert_how2r,
    "how2qa": convert_how2qa,
    "didemo": convert_didemo,
}


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = script_parser(__doc__)
    parser.add_argument("--task", required=True, choices=CONVERTERS)
    parser.add_argument("--annotation", required=True, help="the published file")
    parser.add_argument("--output", required=True, help="JSON lines to write")
    parser.add_argument("--seed", type=int, default=0, help="of the order of answers")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Write the converted annotations."""
    options = parse_arguments(argv)
    check_output(options.output)
    converted = list(CONVERTERS[options.task](options.annotation, options.seed))
    records = [one for one in converted if isinstance(one, dict)]
    left_out = [one for one in converted if isinstance(one, str)]
    if not records:
        raise UserError(
            f"{options.annotation} holds no annotations (moments that are negative or end before "
            f"they start: {len(left_out)}); was it cut short?"
        )
    write_jsonl(options.output, records)
    print(f"{options.output}: {len(records)} annotations")
    if left_out:
        print(
            f"left out {len(left_out)} moment(s) that are negative or end before they start: "
            f"{', '.join(left_out[:NAMED])}{', …' * (len(left_out) > NAMED)}"
        )


if __name__ == "__main__":
    run_main(main)
