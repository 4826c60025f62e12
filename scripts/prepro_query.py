"""Prepare a query database: tokenised queries, questions or statements of one split.

python scripts/prepro_query.py --annotation ann/tvr_val_release.jsonl \
    --output txt_db/tvr_val.db --task tvr

The annotation holds one JSON object a line (How2R, How2QA and DiDeMo are published otherwise: see
scripts/convert_annotations.py):
  tvr, how2r       desc_id, desc; vid_name, ts [start, end] in seconds (absent in a test split)
  didemo…          the same, ts a list of such moments; target: the one to train on (if it is
                   absent: the moment most annotators chose, the first of equals)
  msrvtt           sen_id or retrieval_key, clip_name or vid_name, desc or caption
  tvqa, how2qa     qid, q, a0 … a4 (how2qa: a0 … a3), ts "start-end"; vid_name, answer_idx
  violin           desc_id, desc; vid_name, label
A query, question or answer that is all upper case is lower-cased.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.annotations import Line, RecordError, UniqueIds, get_id, get_text, is_span
from data.lmdb_io import TextDbWriter
from data.prepare import agreed_moment, is_finished, map_lines, pack_line, text_parser
from data.tokenize import encode_texts, load_tokenizer, normalize_query, special_ids
from utils.errors import UserError, run_main
from utils.files import read_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Query:
    """An annotation whose texts are not tokenised yet.

    Attributes:
        raw: the parsed line.
        qid: its id.
        vid: its video, None in a split without videos.
        texts: the query, or a question followed by its answers.
        target: the moment in seconds, the answer's index, the label, or None.
    """

    raw: dict
    qid: str
    vid: str | None
    texts: list[str]
    target: Any


def read_moment_query(raw: dict) -> Query:
    """A query that describes a moment of a video."""
    return Query(raw, get_id(raw, "desc_id"), _video(raw), [get_text(raw, "desc")], _moment(raw))


def read_video_query(raw: dict) -> Query:
    """A query that describes a whole clip (MSR-VTT)."""
    qid = get_id(raw, "sen_id", "retrieval_key", "desc_id")
    vid = _video(raw, "clip_name", "vid_name")
    return Query(raw, qid, vid, [get_text(raw, "desc", "caption")], None)


def read_statement(raw: dict) -> Query:
    """A statement that is true or not (VIOLIN)."""
    label = raw.get("label")
    if label not in (None, 0, 1):
        raise RecordError(f"label must be 0 or 1, not {label!r}")
    return Query(raw, get_id(raw, "desc_id"), _video(raw), [get_text(raw, "desc")], label)


def question_reader(num_answers: int) -> Callable[[dict], Query]:
    """A reader of multiple-choice questions."""
    answers = [f"a{k}" for k in range(num_answers)]

    def read_question(raw: dict) -> Query:
        qid = get_id(raw, "qid")
        target = raw.get("answer_idx")
        if target not in (None, *range(num_answers)):
            raise RecordError(f"answer_idx must be 0 to {num_answers - 1}, not {target!r}")
        texts = [get_text(raw, name) for name in ("q", *answers)]
        _check_question_span(raw.get("ts"))
        return Query({**raw, "qid": qid}, qid, _video(raw), texts, target)

    return read_question


TASKS: dict[str, Callable[[dict], Query]] = {
    "tvr": read_moment_query,
    "how2r": read_moment_query,
    "didemo_video_sub": read_moment_query,
    "didemo_video_only": read_moment_query,
    "didemo": read_moment_query,
    "msrvtt": read_video_query,
    "tvqa": question_reader(5),
    "how2qa": question_reader(4),
    "violin": read_statement,
}


def _video(raw: dict, *names: str) -> str | None:
    names = names or ("vid_name",)
    return get_id(raw, *names) if any(raw.get(name) is not None for name in names) else None


def _check_question_span(ts: object) -> None:
    try:
        start, end = ts.split("-")
        float(start), float(end)  # "NaN-NaN": unknown
    except (AttributeError, ValueError):
        raise RecordError(f'ts must be "start-end" in seconds, not {ts!r}') from None


def _moment(raw: dict) -> list | None:
    """The moment to train on: ``target`` if the line has one, else ``ts``."""
    ts = raw.get("target", raw.get("ts"))
    if ts is None or is_span(ts):
        return ts
    if not isinstance(ts, list) or not ts or not all(map(is_span, ts)):
        raise RecordError(f"ts must be [start, end] in seconds, or a list of such, not {ts!r}")
    return agreed_moment(ts)


@dataclass(frozen=True, slots=True)
class PreparedQuery:
    """A query as stored."""

    line: Line
    qid: str
    vid: str | None
    length: int | list[int]
    value: bytes


class QueryPreparer:
    """Tokenise lines of one task."""

    def __init__(self, task: str, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._read = TASKS[task]
        self._tokenizer = tokenizer

    def __call__(self, lines: list[Line]) -> list[PreparedQuery]:
        """The stored form of each line."""
        queries = [line.read(self._read) for line in lines]
        texts = [normalize_query(text) for query in queries for text in query.texts]
        encoded = iter(encode_texts(self._tokenizer, texts))
        return [
            self._prepare(line, query, [next(encoded) for _ in query.texts])
            for line, query in zip(lines, queries, strict=True)
        ]

    def _prepare(self, line: Line, query: Query, parts: list[list[int]]) -> PreparedQuery:
        vid = {} if query.vid is None else {"vid": query.vid}
        if len(parts) > 1:  # a question: its id is in the record already, as a string
            length = [len(part) for part in parts]
            record = {**query.raw, "input_ids": parts, **vid, "target": query.target}
        else:
            length = len(parts[0])
            record = {**query.raw, **vid, "input_ids": parts[0], "target": query.target}
            record["qid"] = query.qid
        return PreparedQuery(line, query.qid, query.vid, length, pack_line(line, record))


def write_queries(options: argparse.Namespace, meta: dict, sides: dict[str, Any]) -> None:
    """Build the database ``options.output`` with the side files given and its own."""
    tokenizer = load_tokenizer(options.toker)
    ids, id2len, query2video, raw_lines = UniqueIds(), {}, {}, []
    with TextDbWriter(options.output, force=True) as db:
        prepare = QueryPreparer(options.task, tokenizer)
        for query in map_lines(prepare, options.annotation, options.workers):
            ids.claim(query.qid, query.line)
            db.put_value(query.qid, query.value)
            id2len[query.qid] = query.length
            raw_lines.append(query.line.text)
            if query.vid is not None:
                query2video[query.qid] = query.vid
        (db.folder / "query_data.jsonl").write_text("\n".join(raw_lines), encoding="utf-8")
        if query2video:
            sides = {**sides, "query2video.json": query2video}
        for name, value in {**sides, "id2len.json": id2len}.items():
            db.write_side(name, value)
        db.write_side("meta.json", {**meta, **special_ids(tokenizer)}, indent=4)


def split_videos(path: str, split: str | None) -> list[str]:
    """The videos of a split.

    Raises:
        UserError: the file is unreadable or has no such split.
    """
    splits = read_json(path)
    if split not in splits:
        raise UserError(f"{path} has no split {split!r}; --split is one of {', '.join(splits)}")
    return list(splits[split])


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
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
        sides["video_ids.json"] = split_videos(options.vid2dur_idx, options.split)
    output = Path(options.output)
    if not options.force and is_finished(output, recipe, [options.annotation], sides=sides):
        return
    write_queries(options, {**recipe, "tokenizer": options.toker}, sides)


if __name__ == "__main__":
    run_main(main)
