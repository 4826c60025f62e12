"""Checks of queries, questions and statements: texts, videos, moments, answers and labels."""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from config.groups import Kind
from data.annotations import read_lines
from data.check.databases import Corpus, QuerySet, RunData
from data.check.findings import Case, Check, Drops, Finding, examine, warning
from data.check.records import BAD_TEXT, record_cases
from data.check.tokens import OUTSIDE_MODEL, outside
from data.moments import is_clamped, parse_seconds, training_moment
from data.stores.records import QuestionRecord
from data.video_pool import feature_name
from utils.errors import UserError, brief
from utils.names import QUERY_NAMES, VIDEO_QUERY_NAMES, get_name, partner_id

AGAIN = "make the database again (scripts/prepro_query.py)"
ANNOTATION = "fix the annotation and make the database again"


def _record_check(topic: str, title: str, fix: str) -> Check:
    return Check(topic, title, fix, drops=Drops.RECORD)


NO_VIDEO = _record_check(
    "videos",
    "query has no video",
    "this split cannot train or validate: give one whose lines name vid_name",
)
STRAY = warning("side files", "query2video.json has ids that id2len.json lacks", AGAIN)
COUNT = Check("side files", "fewer records than id2len.json has ids", AGAIN)
ANSWERS = _record_check(
    "text lengths", "texts with more or fewer parts (question, answers) than the others", ANNOTATION
)
EMPTY = warning("empty texts", "texts without a token", "nothing: they are read as such")
TOO_LONG = Check("text lengths", "all texts are longer than max_txt_len", "raise --max_txt_len")
NO_LINES = Check("side files", "there is no query_data.jsonl to score with", AGAIN)
PAIRS = warning(
    "pairs",
    "a statement and its partner are about different videos",
    "nothing: each comes alone",
)
SIDE_CHECKS = (STRAY, COUNT, ANSWERS, EMPTY)

LOST = _record_check("records", "id2len.json has the id, the database not", AGAIN)
UNLISTED = warning("records", "in the database, not in id2len.json", AGAIN)
NAME = _record_check("records", "record has another id", AGAIN)
OTHER_VIDEO = _record_check("side files", "video differs from query2video.json's", AGAIN)
LENGTH = warning("side files", "number of tokens differs from id2len.json's", AGAIN)
OUTSIDE = _record_check(
    "vocabulary", OUTSIDE_MODEL, "take the model_config of the tokenizer, or " + AGAIN
)
LINES = Check(
    "scoring", "query_data.jsonl has other ids than id2len.json, or a line without an id", AGAIN
)
TWICE = Check(
    "scoring", 'several lines of query_data.jsonl have one id (1 and "1" are one)', ANNOTATION
)
NO_TARGET = warning("spans", "queries without a moment", "nothing: they teach the video alone")
CLAMPED = warning(
    "spans",
    "moments that are negative or end before they start",
    "nothing: they begin at 0 at the earliest, and end after their start",
)
BEYOND = warning(
    "spans",
    "moments that reach more than a frame beyond the video's end",
    "nothing: they are cut to the last frame",
)
NO_SPAN = warning(
    "spans", "questions whose ts is no moment", "nothing: they teach the answer alone"
)
TARGET = _record_check(
    "answers and labels", "right answer or label missing or out of range", ANNOTATION
)
RECORD_CHECKS = (BAD_TEXT, LOST, UNLISTED, NAME, OTHER_VIDEO, LENGTH, OUTSIDE)
TARGET_CHECKS = {
    Kind.MOMENTS: (NO_TARGET, CLAMPED, BEYOND),
    Kind.QUESTIONS: (TARGET, NO_SPAN, CLAMPED, BEYOND),
    Kind.STATEMENTS: (TARGET,),
}


def quick_findings(data: RunData, corpus: Corpus) -> Iterator[Finding]:
    """Check side files."""
    for queries in corpus.queries:
        checks = list(SIDE_CHECKS)
        checks += [NO_VIDEO] if not (queries.may_hide and queries.searches) else []
        checks += [TOO_LONG] if queries.split == "train" and data.max_txt_len >= 0 else []
        checks += [NO_LINES] if queries.scored else []
        checks += [PAIRS] if queries.kind == Kind.STATEMENTS else []
        cases = (case for case in _side_cases(queries, data) if case.check in checks)
        yield from examine(queries.db.path, checks, cases, of=len(queries.lengths))


def _side_cases(queries: QuerySet, data: RunData) -> Iterator[Case]:
    lengths, videos = queries.lengths, queries.videos
    yield from (STRAY(id_) for id_ in videos if id_ not in lengths)
    yield from (NO_VIDEO(id_) for id_ in lengths if id_ not in videos)
    if len(queries.db) < len(lengths):
        yield COUNT("", f"{len(queries.db)}, not {len(lengths)}")
    if not queries.db.path.joinpath("query_data.jsonl").is_file():
        yield NO_LINES("query_data.jsonl")
    record_type = queries.record_type
    shared = record_type.shared if issubclass(record_type, QuestionRecord) else None
    yield from _length_cases(lengths, data.max_txt_len, shared)
    for id_, vid in videos.items() if queries.kind == Kind.STATEMENTS else ():
        partner = partner_id(id_)
        if partner in videos and videos[partner] != vid:
            yield PAIRS(id_, f"{vid}, {partner}: {videos[partner]}")


class LengthShape(NamedTuple):
    """The lengths of a text, or of a question with its answers."""

    parts: int
    shortest: int  # tokens of the shortest part
    read: int  # tokens that are read at once: the question, if there is one, and its longest answer


def _shape(value: int | list[int], shared: int) -> LengthShape:
    """Return the shape of an entry of ``id2len.json``, whose first ``shared`` parts are read with
    each other one."""
    if isinstance(value, int):
        return LengthShape(1, value, value)
    read = sum(value[:shared]) + max(value[shared:])
    return LengthShape(len(value), min(value), read)


def _length_cases(lengths: dict[str, Any], max_txt_len: int, shared: int | None) -> Iterator[Case]:
    """Check ``id2len.json``; ``shared``: parts before every answer, None: there are no answers."""
    shapes = {id_: _shape(value, shared or 0) for id_, value in lengths.items()}
    numbers = Counter(shapes.values())  # there are few different ones
    parts: Counter[int] = Counter()
    for shape, number in numbers.items():
        parts[shape.parts] += number
    usual = 1 if shared is None or not parts else max(2, parts.most_common(1)[0][0])
    checks = {
        shape: [ANSWERS] * (shape.parts != usual) + [EMPTY] * (shape.shortest == 0)
        for shape in numbers
    }
    if any(checks.values()):
        for id_, shape in shapes.items():
            yield from (check(id_, f"{lengths[id_]}") for check in checks[shape])
    shortest = min((shape.read for shape in numbers), default=0)
    if shortest > max_txt_len:
        yield TOO_LONG("", f"the shortest has {shortest} tokens, max_txt_len is {max_txt_len}")


def full_findings(data: RunData, corpus: Corpus, workers: int) -> Iterator[Finding]:
    """Check every record."""
    for queries in corpus.queries:
        db = queries.db
        cases = record_cases(
            db,
            queries.record_type,
            partial(_query_cases, queries, corpus, data.vocab_size),
            queries.lengths,
            workers,
            bad=BAD_TEXT,
            lost=LOST,
            unlisted=UNLISTED,
        )
        checks = (*RECORD_CHECKS, *TARGET_CHECKS.get(queries.kind, ()))
        yield from examine(db.path, checks, cases, of=len(db), read=queries.lengths)
        if queries.scored:
            yield from examine(db.path, [LINES, TWICE], _line_cases(queries), of=len(db))


def _line_cases(queries: QuerySet) -> Iterator[Case]:
    """Check the lines that predictions are scored with."""
    path = queries.db.path / "query_data.jsonl"
    if not path.is_file():
        return
    names = VIDEO_QUERY_NAMES if queries.kind == Kind.VIDEOS else QUERY_NAMES
    try:
        lines = Counter(
            line.read(lambda raw: get_name(raw, *names.ids)) for line in read_lines(path)
        )
    except UserError as error:
        yield LINES("", str(error))
        return
    yield from (LINES(id_, "no line") for id_ in queries.lengths if id_ not in lines)
    yield from (LINES(id_, "a line only") for id_ in sorted(lines.keys() - queries.lengths.keys()))
    yield from (TWICE(id_, f"{count} lines") for id_, count in lines.items() if count > 1)


def _query_cases(
    queries: QuerySet, corpus: Corpus, vocab_size: int, id_: str, record: Any
) -> Iterator[Case]:
    texts = record.input_ids
    is_question = queries.kind == Kind.QUESTIONS
    length = [len(text) for text in texts] if is_question else len(texts)
    listed = queries.lengths.get(id_, length)
    if length != listed:
        yield LENGTH(id_, f"{length}, not {listed}")
    if wrong := outside(texts if is_question else [texts], vocab_size):
        yield OUTSIDE(id_, wrong)
    if str(record.qid) != id_:
        yield NAME(id_, f"{record.qid!r}")
    vid = None if record.vid is None else feature_name(str(record.vid), corpus.id2nframe)
    if vid != queries.videos.get(id_):
        yield OTHER_VIDEO(id_, f"{vid}, not {queries.videos.get(id_)}")
    if queries.kind in (Kind.QUESTIONS, Kind.STATEMENTS):
        target, choices = record.target, record.choices
        hidden = target is None and queries.split != "train"
        if not hidden and (target is None or target not in range(choices)):
            yield TARGET(id_, f"{target}, not 0 … {choices - 1}")
    if queries.kind in (Kind.QUESTIONS, Kind.MOMENTS):
        moment = parse_seconds(record.ts) if is_question else training_moment(record)
        if moment is not None:
            frames = corpus.id2nframe.get(queries.videos.get(id_, ""))
            yield from span_cases(id_, moment, frames, corpus.interval, BEYOND)
        elif not queries.may_hide:
            yield NO_SPAN(id_, brief(record.ts)) if is_question else NO_TARGET(id_)


def span_cases(
    id_: str, span: Sequence[float], frames: int | None, interval: float, beyond: Check
) -> Iterator[Case]:
    """Yield what is wrong with a moment.

    Args:
        id_: of the moment.
        span: start and end in seconds.
        frames: of its video; None: unknown.
        interval: seconds per frame.
        beyond: check of moments that start after the video's end, or reach beyond it by more than a
            frame (features are often a frame shorter than the annotated duration).
    """
    if is_clamped(span):
        yield CLAMPED(id_, f"{list(span)}")
    elif frames is not None and (span[0] >= frames * interval or span[1] > (frames + 1) * interval):
        yield beyond(id_, f"{list(span)}, video ends at {frames * interval:g}")
