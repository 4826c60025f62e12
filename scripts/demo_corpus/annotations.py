"""The raw annotation files of every task, in the published formats."""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np

from scripts.demo_corpus.datasets import CLIP_SECONDS, Dataset
from scripts.demo_corpus.scenes import Scene, Video
from scripts.demo_corpus.sentences import (
    DESCRIPTIONS,
    EVENTS,
    QUESTIONS,
    SEEN,
    STATEMENTS,
    QuestionForm,
    false_version,
    fill,
    next_scene,
    pick,
    swap_word,
)
from utils.files import atomic_write

_TYPE_SHARES = {"v": 0.6, "t": 0.15, "vt": 0.25}
_QUESTIONS = 3  # times the sentences of a video
_NO_MOMENT = 0.02  # share of training questions whose ``ts`` is "NaN-NaN", as published


@dataclass(frozen=True)
class Description:
    """A sentence about a scene."""

    scene: Scene
    template: str
    type: str  # v, t or vt
    text: str


def describe(
    video: Video,
    how_many: int,
    rng: np.random.Generator,
    forms: Mapping[str, Sequence[str]] = DESCRIPTIONS,
    seen_as: Callable[[Scene], Scene] = lambda scene: scene,
) -> list[Description]:
    """Describe the video's scenes in turn, with no sentence twice.

    Args:
        video: a silent one is described by what is seen (type v).
        how_many: sentences; fewer if there are no more.
        forms: templates by type.
        seen_as: gives the scene to describe in place of one of the video.
    """
    types = [kind for kind in forms if video.subtitles or kind == "v"]
    shares = np.array([_TYPE_SHARES[kind] for kind in types])
    sentences: dict[str, Description] = {}
    order = rng.permutation(len(video.scenes))
    for turn in range(10 * how_many):  # a scene has several sentences, a repeated draw is rare
        if len(sentences) == how_many:
            break
        scene = seen_as(video.scenes[order[turn % len(order)]])
        kind = types[rng.choice(len(types), p=shares / shares.sum())]
        template = pick(forms[kind], rng)
        text = fill(template, scene)
        sentences.setdefault(text, Description(scene, template, kind, text))
    return list(sentences.values())


def moment(scene: Scene, video: Video, rng: np.random.Generator) -> list[float]:
    """Return the scene's [start, end] as an annotator would mark it, within half a second."""
    start, end = np.array([scene.start, scene.end]) + rng.uniform(-0.5, 0.5, 2)
    return [round(max(0.0, start), 2), round(min(video.duration, end), 2)]


@dataclass(frozen=True)
class Draw:
    """What a task's annotations are drawn with."""

    per_video: int  # texts of each kind
    rng: np.random.Generator
    ids: Iterator[int]


def _moment_row(sentence: Description, video: Video, ts: list, draw: Draw) -> dict:
    return {
        "vid_name": video.name,
        "duration": video.duration,
        "ts": ts,
        "desc": sentence.text,
        "type": sentence.type,
        "desc_id": next(draw.ids),
    }


def tvr(split: str, video: Video, draw: Draw) -> Iterator[dict]:
    """Yield TVR's moments; the public test split hides videos and moments."""
    for sentence in describe(video, draw.per_video, draw.rng):
        row = _moment_row(sentence, video, moment(sentence.scene, video, draw.rng), draw)
        yield row if split != "test_public" else {key: row[key] for key in ("desc", "desc_id")}


def _ask(
    video: Video, scene: Scene, form: QuestionForm, answers: int, rng: np.random.Generator
) -> tuple[str, str, list[str]]:
    """Return a question, its right answer, and wrong answers, of words not in the video."""
    right = fill(form.answer, scene)
    wrong: list[str] = []
    while len(wrong) < answers - 1:
        text = fill(form.answer, swap_word(scene, form.slot, video, rng))
        if text not in wrong:
            wrong.append(text)
    return fill(form.question, scene), right, wrong


def _questions(video: Video, answers: int, draw: Draw) -> Iterator[dict]:
    """Yield multiple-choice questions about a video; ``ts`` comes last, as ``start-end``."""
    rng = draw.rng
    forms = [form for form in QUESTIONS if video.subtitles or form.slot != "topic"]
    pairs = [(scene, form) for scene in video.scenes for form in forms]
    for number in rng.permutation(len(pairs))[: _QUESTIONS * draw.per_video]:
        scene, form = pairs[number]
        question, right, wrong = _ask(video, scene, form, answers, rng)
        place = int(rng.integers(answers))
        options = [*wrong[:place], right, *wrong[place:]]
        row = {"qid": next(draw.ids), "q": question, "vid_name": video.name}
        row |= {f"a{i}": option for i, option in enumerate(options)}
        start, end = moment(scene, video, rng)
        yield row | {"answer_idx": place, "ts": f"{start}-{end}"}


def tvqa(split: str, video: Video, draw: Draw) -> Iterator[dict]:
    """Yield TVQA's questions with five answers; the public test split hides the right one."""
    for row in _questions(video, 5, draw):
        row["show_name"] = video.name.split("_")[0]
        if split == "train" and draw.rng.random() < _NO_MOMENT:
            row["ts"] = "NaN-NaN"
        if split == "test_public":
            del row["answer_idx"]
        yield row


def how2qa(_split: str, video: Video, draw: Draw) -> Iterator[dict]:
    """Yield How2QA's questions with four answers."""
    return _questions(video, 4, draw)


def tvc(split: str, video: Video, draw: Draw) -> Iterator[dict]:
    """Yield TVC's clips: two captions each to train on, four to validate, none to test."""
    for number in draw.rng.permutation(len(video.scenes))[: draw.per_video]:
        scene, clip_id = video.scenes[number], next(draw.ids)
        row = {
            "vid_name": video.name,
            "duration": video.duration,
            "ts": moment(scene, video, draw.rng),
            "clip_id": clip_id,
        }
        if split != "test_public":
            row["descs"] = _captions(scene, clip_id, 2 if split == "train" else 4, draw.rng)
        yield row


def _captions(scene: Scene, clip_id: int, how_many: int, rng: np.random.Generator) -> list[dict]:
    templates = DESCRIPTIONS["v"]
    return [
        {
            "desc": fill(templates[number], scene),
            "from_retrieval": place == 0,
            "desc_id": 10 * clip_id + place,
            "type": "v",
        }
        for place, number in enumerate(rng.permutation(len(templates))[:how_many])
    ]


def violin(_split: str, video: Video, draw: Draw) -> Iterator[dict]:
    """Yield VIOLIN's pairs: ``…-1`` is true of the video, in ``…-0`` one word is wrong."""
    for number, sentence in enumerate(describe(video, draw.per_video, draw.rng, STATEMENTS)):
        false = false_version(sentence.template, sentence.scene, video, draw.rng)
        for label, text in enumerate((false, sentence.text)):
            id_ = f"{video.name}-{number}-{label}"
            yield {"desc_id": id_, "desc": text, "vid_name": video.name, "label": label}


def msrvtt(split: str, video: Video, draw: Draw) -> Iterator[dict]:
    """Yield MSR-VTT's captions; a test video has one, under a retrieval key."""
    for sentence in describe(video, 1 if split == "test" else draw.per_video, draw.rng, SEEN):
        id_ = next(draw.ids)
        key = {"retrieval_key": f"ret{id_}"} if split == "test" else {"sen_id": id_}
        yield {"clip_name": video.name, **key, "caption": sentence.text}


def didemo(_split: str, video: Video, draw: Draw) -> Iterator[dict]:
    """Yield DiDeMo's moments: four or five annotators each, in units of five seconds."""
    for sentence in describe(video, draw.per_video, draw.rng, SEEN):
        yield _moment_row(sentence, video, _annotators(sentence.scene, video, draw.rng), draw)


def _annotators(scene: Scene, video: Video, rng: np.random.Generator) -> list[list[float]]:
    """Return the spans of four or five annotators; the last may be a unit off at an end."""
    spans = [[scene.start, scene.end] for _ in range(rng.integers(4, 6))]
    if rng.random() < 0.3:
        start, end = scene.start, scene.end
        spans[-1] = [start, end + 5.0] if end < video.duration else [start - 5.0, end]
    return spans


def vlep(split: str, video: Video, draw: Draw) -> Iterator[dict]:
    """Yield VLEP's pairs of events after a scene: the unlikely one has nothing of the video.

    The test split hides which one is likelier.
    """
    rng = draw.rng
    for sentence in describe(video, draw.per_video, rng, {"v": EVENTS}, next_scene):
        elsewhere = sentence.scene
        for slot in ("person", "verb", "thing", "place"):
            elsewhere = swap_word(elsewhere, slot, video, rng)
        events = [sentence.text, fill(sentence.template, elsewhere)]
        answer = int(rng.integers(2))
        row = {
            "example_id": next(draw.ids),
            "vid_name": video.name,
            "ts": moment(sentence.scene, video, rng),
            "events": events[::-1] if answer else events,
            "answer": answer,
            "split": split,
        }
        if split == "test":
            del row["answer"]
        yield row


def vatex_en_r(split: str, video: Video, draw: Draw) -> Iterator[dict]:
    """Yield VATEX-EN-R's sentences about whole videos; test splits hide the video."""
    for sentence in describe(video, draw.per_video, draw.rng, SEEN):
        row = {"desc": sentence.text, "desc_id": next(draw.ids)}
        of_video = {"vid_name": video.name, "duration": video.duration}
        yield row if split.startswith("test") else of_video | row


def yc2r(split: str, video: Video, draw: Draw) -> Iterator[dict]:
    """Yield YC2R's sentences, one a segment."""
    return vatex_en_r(split, video, replace(draw, per_video=1))


def vatex_en_c(split: str, video: Video, draw: Draw) -> Iterator[dict]:
    """Yield VATEX-EN-C's videos: several references each, none in the private test."""
    clip_id = next(draw.ids)
    row: dict = {"vid_name": video.name, "clip_id": clip_id, "duration": video.duration}
    if split not in ("test", "test_private"):
        row["descs"] = [
            {"desc": sentence.text, "desc_id": 10 * clip_id + place}
            for place, sentence in enumerate(describe(video, draw.per_video, draw.rng, SEEN))
        ]
    yield row


def yc2c(split: str, video: Video, draw: Draw) -> Iterator[dict]:
    """Yield YC2C's segments: one reference each, none to test."""
    return vatex_en_c(split, video, replace(draw, per_video=1))


def how2r(_split: str, video: Video, draw: Draw) -> Iterator[dict]:
    """Yield How2R's moments."""
    for sentence in describe(video, draw.per_video, draw.rng):
        row = _moment_row(sentence, video, moment(sentence.scene, video, draw.rng), draw)
        del row["type"]
        yield row


def _in_source_video(row: dict) -> tuple[str, int, str]:
    """Return the source video of a How2 clip, where the clip starts, and the moment as published:
    in seconds of the source video."""
    source, number = row["vid_name"].rsplit(".", 1)
    offset = int(CLIP_SECONDS) * int(number)
    ts = map(float, row["ts"].split("-")) if isinstance(row["ts"], str) else row["ts"]
    start, end = (round(second + offset, 2) for second in ts)
    return source, offset, f"[{start}:{end}]"


def how2r_csv(row: dict) -> list[str]:
    """Return a line of How2R as published."""
    source, offset, span = _in_source_video(row)
    return [source, f"[{offset}:{offset + int(CLIP_SECONDS)}]", span, row["desc"]]


def how2qa_csv(row: dict) -> list[str]:
    """Return a line of How2QA as published: the right answer is the last."""
    source, _, span = _in_source_video(row)
    answers = [row[f"a{i}"] for i in range(4)]
    right = answers.pop(row["answer_idx"])
    return [source, span, *answers, row["q"], right]


@dataclass(frozen=True)
class Task:
    """How a task's annotations are made."""

    dataset: str  # whose videos they describe
    rows: Callable[[str, Video, Draw], Iterable[dict]]  # the lines about one video of a split
    first_id: int = 0
    ending: str = ""  # of the files' names
    splits: tuple[str, ...] = ()  # which have annotations; none: all of the data set
    csv: Callable[[dict], list[str]] | None = None  # a line of How2's published files


TASKS = {
    "tvr": Task("tv", tvr, 90000),
    "tvqa": Task("tv", tvqa, 30000),
    "tvc": Task("tv", tvc, 60000),
    "violin": Task("violin", violin),
    "msrvtt": Task("msrvtt", msrvtt, 1),
    "didemo": Task("didemo", didemo, 70000),
    "how2r": Task("how2", how2r, 80000, csv=how2r_csv),
    "how2qa": Task("how2", how2qa, 30000, csv=how2qa_csv),
    "yc2r": Task("yc2", yc2r, 10000),
    "vatex_en_r": Task("vatex", vatex_en_r, 10000, splits=("train", "val", "test_public")),
    "vlep": Task("vlep", vlep, 20000),
    "yc2c": Task("yc2", yc2c, 300, "_release", ("val", "test")),
    "vatex_en_c": Task("vatex", vatex_en_c, 300, "_release", ("test_public", "test_private")),
}


def make_annotations(
    name: str, data: Dataset, per_video: int, rng: np.random.Generator
) -> dict[str, list]:
    """Return a task's annotations: lines by file name."""
    task = TASKS[name]
    draw = Draw(per_video, rng, count(task.first_id))
    files: dict[str, list] = {}
    for split in task.splits or data.splits:
        rows = [row for video in data.splits[split] for row in task.rows(split, video, draw)]
        files[f"{name}_{split}{task.ending}.jsonl"] = rows
        if task.csv is not None:
            published = f"how2{name.removeprefix('how2').upper()}_{split}_release.csv"
            files[published] = [task.csv(row) for row in rows]
    return files


def texts_of(row: dict | list) -> Iterator[str]:
    """Yield the sentences of an annotation or subtitle line, to train a tokenizer on."""
    if isinstance(row, list):
        return
    for key in ("desc", "caption", "q", "a0", "a1", "a2", "a3", "a4", "text"):
        if key in row:
            yield row[key]
    for part in (*row.get("descs", ()), *row.get("sub", ())):
        yield from texts_of(part)


def write_csv(path: Path, rows: list[list]) -> None:
    """Write a CSV file without a header, atomically."""
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out, lineterminator="\n").writerows(rows)
