"""Records of text databases that cannot be decoded, or whose fields make no sense."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import lz4.frame
import msgpack

from tests.hostile.harness import Case, Make, Place, damaged_file, spread
from tests.hostile.line_files import INFINITY, NAN, NOTHING
from tests.hostile.text_files import checking, of_task
from tests.hostile.worlds import evaluation, search, training

VOCABULARY = 602  # of the models in :mod:`tests.hostile.worlds`


def set_value(database: Path, id_: str, value: bytes) -> None:
    """Replace what is stored under an id."""
    with (
        lmdb.open(str(database), map_size=1 << 26, lock=False) as environment,
        environment.begin(write=True) as transaction,
    ):
        transaction.put(id_.encode(), value)


def get_record(database: Path, id_: str) -> dict:
    """A record, with plain LMDB, lz4 and msgpack."""
    with (
        lmdb.open(str(database), readonly=True, lock=False) as environment,
        environment.begin() as transaction,
    ):
        return msgpack.unpackb(lz4.frame.decompress(transaction.get(id_.encode())))


def packed(value: Any) -> bytes:
    """A record as stored, whatever it is."""
    return lz4.frame.compress(msgpack.packb(value, use_bin_type=True))


def bomb() -> bytes:
    """A frame of 200 KB that grows to 50 MB of an array nested as deep."""
    return lz4.frame.compress(b"\x91" * 50_000_000)


UNDECODABLE: dict[str, Callable[[], bytes]] = {
    "no lz4 frame": lambda: b"not a frame at all",
    "empty": lambda: b"",
    "lz4 cut short": lambda: packed({"desc": "x" * 1000})[:-20],
    "no msgpack": lambda: lz4.frame.compress(b"\xc1\xc1\xc1"),
    "msgpack cut short": lambda: lz4.frame.compress(msgpack.packb({"desc": "x" * 100})[:50]),
    "a list": lambda: packed([1, 2, 3]),
    "nested 200,000 deep": lambda: lz4.frame.compress(b"\x91" * 200_000),
    "nested 50,000,000 deep": bomb,
    "a megabyte without its end": lambda: lz4.frame.compress(
        msgpack.packb({"desc": "x" * 1_200_000, "input_ids": [1]})[:-1]
    ),
    "bytes after its end": lambda: lz4.frame.compress(msgpack.packb({"desc": "x"}) + b"more"),
}


def with_value(arrange: Make, database: str, id_: str, value: Callable[[], bytes]) -> Make:
    """A sound world with one record replaced."""
    return damaged_file(arrange, database, lambda path: set_value(path, id_, value()))


def with_field(arrange: Make, database: str, id_: str, field: str, value: Any) -> Make:
    """A sound world with one field of one record changed."""

    def make(place: Place) -> list[object]:
        arguments = arrange(place)
        record = get_record(place.folder / database, id_)
        if value is NOTHING:
            del record[field]
        else:
            record[field] = value
        set_value(place.folder / database, id_, packed(record))
        return arguments

    return make


# reader, script, arrange, database, id
READERS: list[tuple[str, str, Make, str, str]] = [
    ("query record", "train_vcmr", training, "train.db", "a0"),
    ("query record", "eval_vcmr", evaluation, "val.db", "c0"),
    ("question record", "train_videoQA", of_task(training, "tvqa"), "train.db", "a0"),
    ("statement record", "eval_violin", of_task(evaluation, "violin"), "val.db", "c-0"),
    ("subtitle record", "train_vcmr", training, "subtitles.db", "a"),
    ("subtitle record", "pretrain", of_task(training, "pretrain"), "subtitles.db", "a"),
    ("subtitle record", "scripts.search_videos", search, "subtitles.db", "a"),
    ("caption record", "train_tvc", of_task(training, "tvc"), "train.db/cap.db", "a0"),
]

CASES = [
    Case(reader, mutation, script, with_value(arrange, db, id_, value), (Path(db).name, repr(id_)))
    for (reader, script, arrange, db, id_), (mutation, value) in spread(
        UNDECODABLE.items(), READERS, 3
    )
]

CASES += [
    Case(
        "query record",
        mutation,
        "scripts.check_data",
        with_value(checking, "train.db", "a0", value),
        ("train.db", "a0"),
        code=1,
    )
    for mutation, value in UNDECODABLE.items()
]

TOKENS: list[Any] = [
    NOTHING,
    None,
    "text",
    7,
    [1.5],
    ["a"],
    [-1],
    [VOCABULARY],
    [2**63],
    [[4, 5]],
]
TEXT_READERS: list[tuple[str, str, Make, str, str]] = [
    ("query record", "train_vcmr", training, "train.db", "a0"),
    ("query record", "eval_vr", of_task(evaluation, "msrvtt_video_sub"), "val.db", "c0"),
    ("statement record", "train_violin", of_task(training, "violin"), "train.db", "a-0"),
    ("caption record", "train_tvc", of_task(training, "tvc"), "train.db/cap.db", "a0"),
]
QUESTION_TOKENS: list[Any] = [NOTHING, "text", [4], [[4], [-1], [5]], [[4], 5, [6]], [[4]], []]
SUBTITLE_FIELDS: list[tuple[str, Any]] = [
    ("input_ids", NOTHING),
    ("input_ids", "text"),
    ("input_ids", [4, 5]),
    ("input_ids", [["a"], [5]]),
    ("input_ids", [[-4], [5]]),
    ("input_ids", [[VOCABULARY], [5]]),
    ("unique_sub2frames", NOTHING),
    ("unique_sub2frames", "text"),
    ("unique_sub2frames", [0, 1]),
    ("unique_sub2frames", [[0, ["a"]]]),
    ("unique_sub2frames", [[0, [-3]]]),
    ("unique_sub2frames", [[9, [0]]]),
    ("unique_sub2frames", [[-1, [0]]]),
    ("unique_sub2frames", [[0, [0.5]]]),
]
TARGETS: list[Any] = ["text", 3, [1.0], [NAN, 2.0], [1.0, INFINITY], [1.0, "2"], [], {"start": 1}]
ANSWERS: list[Any] = [NOTHING, 2, -1, 2**62]
NO_ANSWERS: list[Any] = ["1", 0.5, NAN, [1], True, 2**63]
CLIP_FIELDS: list[tuple[str, Any]] = [
    ("ts", NOTHING),
    ("ts", "text"),
    ("ts", [1.0]),
    ("ts", [NAN, 2.0]),
    ("ts", [1.0, INFINITY]),
    ("clip_id", NOTHING),
    ("clip_id", [1]),
]


def shown(value: Any) -> str:
    """A value in a case's name."""
    return "none" if value is NOTHING else repr(value)[:40]


def field_cases(
    reader: str,
    script: str,
    arrange: Make,
    db: str,
    id_: str,
    fields: list[tuple[str, Any]],
    named: str | None = None,
) -> list[Case]:
    """A record of a database with one field changed each; ``named``: what the message calls it."""
    return [
        Case(
            reader,
            f"{field} {shown(value)}",
            script,
            with_field(arrange, db, id_, field, value),
            (Path(db).name, id_, named or field),
        )
        for field, value in fields
    ]


def every(field: str, values: list[Any]) -> list[tuple[str, Any]]:
    """One field with each of the values."""
    return [(field, value) for value in values]


for _reader, _change in spread(every("input_ids", TOKENS), TEXT_READERS, 2):
    CASES += field_cases(*_reader, [_change])


def without_references(place: Place) -> list[object]:
    """Words of a captioning that nothing scores."""
    arguments = evaluation(place, "tvc")
    place.write("ref.jsonl", '{"vid_name": "c", "clip_id": "cc", "ts": [1.0, 3.5]}\n')
    return arguments


QUESTIONS, STATEMENTS = of_task(training, "tvqa"), of_task(training, "violin")
CAPTIONS = of_task(training, "tvc")
QUESTION_READERS = [
    ("question record", "train_videoQA", QUESTIONS, "train.db", "a0"),
    ("question record", "eval_videoQA", of_task(evaluation, "tvqa"), "val.db", "c0"),
]
SUBTITLE_READERS = [
    ("subtitle record", "train_vcmr", training, "subtitles.db", "a"),
    ("subtitle record", "pretrain", of_task(training, "pretrain"), "subtitles.db", "a"),
    ("subtitle record", "inf_tvc", without_references, "subtitles.db", "c"),
]
for _readers, _fields in (
    (QUESTION_READERS, every("input_ids", QUESTION_TOKENS)),
    (SUBTITLE_READERS, SUBTITLE_FIELDS),
):
    for _reader, _change in spread(_fields, _readers, len(_readers) - 1):
        CASES += field_cases(*_reader, [_change])
FIELDS: list[tuple] = [
    ("query record", "train_vcmr", training, "train.db", "a0", every("target", TARGETS)),
    (
        *("question record", "train_videoQA", QUESTIONS, "train.db", "a0"),
        *(every("target", ANSWERS), "right answer"),
    ),
    (
        *("question record", "train_videoQA", QUESTIONS, "train.db", "a0"),
        every("target", NO_ANSWERS),
    ),
    (
        *("statement record", "train_violin", STATEMENTS, "train.db", "a-0"),
        *(every("target", ANSWERS), "label"),
    ),
    (
        *("statement record", "train_violin", STATEMENTS, "train.db", "a-0"),
        every("target", NO_ANSWERS),
    ),
    ("caption record", "train_tvc", CAPTIONS, "train.db/cap.db", "a0", CLIP_FIELDS),
]
for _arguments in FIELDS:
    CASES += field_cases(*_arguments)
