"""Prepare a query database: tokenised queries, questions or statements of one split.

python scripts/prepro_query.py --annotation ann/tvr_val_release.jsonl \
    --output txt_db/tvr_val.db --task tvr

The annotation holds one JSON object a line (How2R, How2QA and DiDeMo are published otherwise: see
scripts/convert_annotations.py):
  tvr, how2r       desc_id, desc; vid_name, ts [start, end] in seconds (absent in a test split)
  didemo…          the same, ts a list of such moments; target: the one to train on (if it is
                   absent: the moment most annotators chose, the first of equals)
  msrvtt           sen_id, retrieval_key or desc_id; clip_name, vid_name or video_id;
                   desc or caption
  tvqa, how2qa     qid, q, a0 … a4 (how2qa: a0 … a3), ts "start-end"; vid_name, answer_idx
  violin           desc_id or example_id; desc or statement; vid_name, label or answer
  yc2r, vatex_en_r desc_id, desc; vid_name (absent in a test split)
  vlep             example_id, events [text, text], ts [start, end] of what comes before; vid_name,
                   answer
Of several names the first that is present and not null counts. A file names the videos of all lines
or of none. A query, question or answer that is all upper case is lower-cased; white space around is
stripped.
"""

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.annotations import Line, UniqueIds, get_text, is_seconds, is_span, published_form
from data.bpe_tokenizer import BpeTokenizer
from data.moments import agreed_moment, refuse_clamped, warn_of_single_moments, warn_of_units
from data.prepare.work import encode_groups, map_lines, needs_build, pack_line, text_parser
from data.stores.lmdb_io import TextDbWriter
from data.tokenize import load_tokenizer, normalize_query, tokenizer_meta
from data.video_indices import split_indices
from utils.errors import RecordError, UserError, brief, run_main
from utils.files import read_json
from utils.logger import LOGGER
from utils.names import find_name, get_name, names_of_task


@dataclass(frozen=True, slots=True)
class Query:
    """An annotation whose texts are not tokenised yet."""

    raw: dict  # the parsed line
    qid: str  # its id
    vid: str | None  # its video, None in a split without videos
    texts: list[str]  # the query, or a question followed by its answers
    target: Any  # the moment in seconds, the answer's index, the label, or None


Content = tuple[list[str], Any]  # texts and target of a query


def read_moment_query(raw: dict) -> Content:
    """Read a query that describes a moment of a video."""
    return [get_text(raw, "desc")], _moment(raw)


def read_video_query(raw: dict) -> Content:
    """Read a query that describes a whole clip (MSR-VTT, YC2R, VATEX-EN-R)."""
    return [get_text(raw, "desc", "caption")], None


def read_statement(raw: dict) -> Content:
    """Read a statement that is true or not (VIOLIN)."""
    return [get_text(raw, "desc", "statement")], _choice(raw, 2, "label", "answer")


def read_events(raw: dict) -> Content:
    """Read two events, one of which comes next (VLEP)."""
    events, span = raw.get("events"), raw.get("ts")
    if not isinstance(events, list) or len(events) != 2:
        raise RecordError(f"events must be two texts, not {brief(events)}")
    if span is not None:
        if not is_span(span):
            raise RecordError(f"ts must be [start, end] in seconds, not {brief(span)}")
        refuse_clamped(span)
    texts = [get_text({"events": event}, "events") for event in events]
    return texts, _choice(raw, 2, "answer")


def read_question(raw: dict, num_answers: int) -> Content:
    """Read a multiple-choice question."""
    target = _choice(raw, num_answers, "answer_idx")
    texts = [get_text(raw, name) for name in ("q", *(f"a{k}" for k in range(num_answers)))]
    _check_question_span(raw.get("ts"))
    return texts, target


def _choice(raw: dict, choices: int, *names: str) -> int | None:
    """Return the index of the right choice, None where the line has none."""
    name = next((name for name in names if raw.get(name) is not None), None)
    value = None if name is None else raw[name]
    if name and (type(value) is not int or not 0 <= value < choices):
        raise RecordError(f"{name} must be a whole number, 0 to {choices - 1}, not {brief(value)}")
    return value


TASKS: dict[str, Callable[[dict], Content]] = {
    "tvr": read_moment_query,
    "how2r": read_moment_query,
    "didemo_video_sub": read_moment_query,
    "didemo_video_only": read_moment_query,
    "didemo": read_moment_query,
    "msrvtt": read_video_query,
    "tvqa": partial(read_question, num_answers=5),
    "how2qa": partial(read_question, num_answers=4),
    "violin": read_statement,
    "yc2r": read_video_query,
    "vatex_en_r": read_video_query,
    "vlep": read_events,
}


def _check_question_span(ts: object) -> None:
    try:
        span = [*map(float, ts.split("-"))] if isinstance(ts, str) else []
    except ValueError:
        span = []
    unknown = all(map(math.isnan, span))  # "NaN-NaN"
    if len(span) != 2 or not (unknown or is_span(span)):
        raise RecordError(f'ts must be "start-end" in seconds, not {brief(ts)}')
    refuse_clamped(span)


def _moment(raw: dict) -> list | None:
    """Return the moment to train on: ``target`` if the line has one, else ``ts``."""
    given = [raw[name] for name in ("target", "ts") if raw.get(name) is not None]
    for value in given:
        moments = [value] if is_span(value) else value
        if not isinstance(moments, list) or not moments or not all(map(is_span, moments)):
            raise RecordError(
                f"ts must be [start, end] in seconds, or a list of such, not {brief(value)}"
            )
        for moment in moments:
            refuse_clamped(moment)
    if not given:
        return None
    return given[0] if is_span(given[0]) else agreed_moment(given[0])


@dataclass(frozen=True, slots=True)
class PreparedQuery:
    """A query as stored."""

    line: Line
    query: Query
    length: int | list[int]  # in tokens
    value: bytes  # the record


@dataclass(frozen=True)
class QueryPreparer:
    """Tokenises lines of one task."""

    task: str
    tokenizer: BpeTokenizer

    def __call__(self, lines: list[Line]) -> list[PreparedQuery]:
        """Return the stored form of each line."""
        queries = [line.read(self._read) for line in lines]
        texts = [[normalize_query(text) for text in query.texts] for query in queries]
        encoded = encode_groups(self.tokenizer, texts)
        return list(map(_prepare, lines, queries, encoded))

    def _read(self, raw: dict) -> Query:
        names = names_of_task(self.task)
        qid, vid = get_name(raw, *names.ids), find_name(raw, *names.videos)
        return Query(raw, qid, vid, *TASKS[self.task](raw))


def _prepare(line: Line, query: Query, parts: list[list[int]]) -> PreparedQuery:
    raw = {name: value for name, value in query.raw.items() if name != "vid"}
    vid = {} if query.vid is None else {"vid": query.vid}
    length: int | list[int]
    if len(parts) > 1:  # a question or events
        length = [len(part) for part in parts]
        record = {**raw, "input_ids": parts, **vid, "target": query.target}
    else:
        length = len(parts[0])
        record = {**raw, **vid, "input_ids": parts[0], "target": query.target}
    record["qid"] = query.qid  # in the line's order, or at the end
    return PreparedQuery(line, query, length, pack_line(line, record))


def write_queries(options: argparse.Namespace, meta: dict, sides: dict[str, Any]) -> None:
    """Build the database ``options.output`` with the side files given and its own."""
    tokenizer = load_tokenizer(options.toker)
    ids, id2len, moments, ts = UniqueIds(), {}, [], []
    query2video: dict[str, str] = {}
    raw_lines: list[str] = []
    with TextDbWriter(options.output, force=True) as db:
        prepare = QueryPreparer(options.task, tokenizer)
        for prepared in map_lines(prepare, options.annotation, options.workers):
            query, line = prepared.query, prepared.line
            ids.claim(query.qid, line)
            if raw_lines and (query.vid is None) == bool(query2video):
                own = "no" if query2video else "a"
                fields = " or ".join(names_of_task(options.task).videos)
                raise line.error(f"unlike the lines before it names {own} video ({fields})")
            db.put_value(query.qid, prepared.value)
            id2len[query.qid] = prepared.length
            raw_lines.append(line.text)
            ts.append(query.raw.get("ts"))
            if is_span(query.target):
                duration = query.raw.get("duration")
                moments.append((query.target, duration if is_seconds(duration) else math.inf))
            if query.vid is not None:
                query2video[query.qid] = query.vid
        (db.folder / "query_data.jsonl").write_text("\n".join(raw_lines), encoding="utf-8")
        if query2video:
            sides = {**sides, "query2video.json": query2video}
        for name, value in {**sides, "id2len.json": id2len}.items():
            db.write_side(name, value)
        db.write_side("meta.json", {**meta, **tokenizer_meta(tokenizer)}, indent=4)
    warn_of_units(moments, options.annotation)
    if options.task.startswith("didemo"):
        warn_of_single_moments(ts, options.annotation)
    if not any(length if isinstance(length, int) else length[0] for length in id2len.values()):
        LOGGER.warning("%s: all %d texts are empty", options.annotation, len(id2len))


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = text_parser(__doc__)
    parser.add_argument("--task", default="tvr", choices=TASKS, help="default: %(default)s")
    parser.add_argument("--vid2dur_idx", help="{split: {video: …}}: writes video_ids.json …")
    parser.add_argument("--split", help="… of this split, for one whose lines name no videos")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Build the database unless it is made already."""
    options = parse_arguments(argv)
    recipe = {name: getattr(options, name) for name in ("annotation", "output", "toker", "task")}
    sides = {}
    if options.vid2dur_idx:
        splits = read_json(options.vid2dur_idx)
        indices = split_indices(splits, str(options.split), options.vid2dur_idx, required=True)
        sides["video_ids.json"] = list(indices)
    if not needs_build(options, recipe, [options.annotation], sides=sides):
        return
    try:
        write_queries(options, {**recipe, "tokenizer": options.toker}, sides)
    except UserError as error:
        form = published_form(options.annotation)
        if form is None:
            raise
        raise UserError(f"{options.annotation} {form}") from error


if __name__ == "__main__":
    run_main(main)
