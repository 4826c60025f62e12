"""The raw annotation files of every task, in the published formats."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np

from scripts.demo_corpus.datasets import Dataset
from scripts.demo_corpus.scenes import Scene, Video
from scripts.demo_corpus.sentences import (
    DESCRIPTIONS,
    EVENTS,
    QUESTIONS,
    SEEN,
    STATEMENTS,
    QuestionForm,
    false_version,
    next_scene,
    pick,
    swap_word,
    tell,
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
    """Tell of the video's scenes in turn, with no sentence twice.

    Args:
        video: a silent one is told of by what is seen (type v).
        how_many: sentences; fewer if there are no more.
        rng: source of the draws.
        forms: templates by type.
        seen_as: what is told of a scene.
    """
    types = [kind for kind in forms if video.subtitles or kind == "v"]
    shares = np.array([_TYPE_SHARES[kind] for kind in types])
    found: dict[str, Description] = {}
    order = rng.permutation(len(video.scenes))
    for turn in range(10 * how_many):  # a scene has several sentences, a repeated draw is rare
        if len(found) == how_many:
            break
        scene = seen_as(video.scenes[order[turn % len(order)]])
        kind = types[rng.choice(len(types), p=shares / shares.sum())]
        template = pick(forms[kind], rng)
        text = tell(template, scene)
        found.setdefault(text, Description(scene, template, kind, text))
    return list(found.values())


def moment(scene: Scene, video: Video, rng: np.random.Generator) -> list[float]:
    """Return what an annotator would mark for the scene: [start, end], within half a second."""
    start, end = np.array([scene.start, scene.end]) + rng.uniform(-0.5, 0.5, 2)
    return [round(max(0.0, start), 2), round(min(video.duration, end), 2)]


def tvr(data: Dataset, per_video: int, rng: np.random.Generator) -> dict[str, list[dict]]:
    """Make TVR's moments; the public test split hides videos and moments."""
    ids = count(90000)
    files: dict[str, list[dict]] = {}
    for split, videos in data.splits.items():
        files[f"tvr_{split}.jsonl"] = rows = []
        for video in videos:
            for told in describe(video, per_video, rng):
                row = {
                    "vid_name": video.name,
                    "duration": video.duration,
                    "ts": moment(told.scene, video, rng),
                    "desc": told.text,
                    "type": told.type,
                    "desc_id": next(ids),
                }
                hidden = {"desc": row["desc"], "desc_id": row["desc_id"]}
                rows.append(hidden if split == "test_public" else row)
    return files


def _ask(
    video: Video, scene: Scene, form: QuestionForm, answers: int, rng: np.random.Generator
) -> tuple[str, str, list[str]]:
    """Ask about the scene: question, right answer, wrong answers (of words not in the video)."""
    right = tell(form.answer, scene)
    wrong: list[str] = []
    while len(wrong) < answers - 1:
        text = tell(form.answer, swap_word(scene, form.slot, video, rng))
        if text not in wrong:
            wrong.append(text)
    return tell(form.question, scene), right, wrong


def _questions(
    data: Dataset, per_video: int, answers: int, rng: np.random.Generator
) -> Iterator[tuple[str, Video, Scene, dict]]:
    """Yield (split, video, scene, row) of multiple-choice questions; the row lacks the moment."""
    ids = count(30000)
    for split, videos in data.splits.items():
        for video in videos:
            forms = [form for form in QUESTIONS if video.subtitles or form.slot != "topic"]
            pairs = [(scene, form) for scene in video.scenes for form in forms]
            for number in rng.permutation(len(pairs))[: _QUESTIONS * per_video]:
                scene, form = pairs[number]
                question, right, wrong = _ask(video, scene, form, answers, rng)
                place = int(rng.integers(answers))
                options = [*wrong[:place], right, *wrong[place:]]
                row = {"qid": next(ids), "q": question, "vid_name": video.name}
                row |= {f"a{i}": option for i, option in enumerate(options)}
                yield split, video, scene, row | {"answer_idx": place}


def tvqa(data: Dataset, per_video: int, rng: np.random.Generator) -> dict[str, list[dict]]:
    """Make TVQA's questions with five answers; the public test split hides the right one."""
    files: dict[str, list[dict]] = {f"tvqa_{split}.jsonl": [] for split in data.splits}
    for split, video, scene, row in _questions(data, per_video, 5, rng):
        start, end = moment(scene, video, rng)
        row["ts"] = f"{start}-{end}"
        row["show_name"] = video.name.split("_")[0]
        if split == "train" and rng.random() < _NO_MOMENT:
            row["ts"] = "NaN-NaN"
        if split == "test_public":
            del row["answer_idx"]
        files[f"tvqa_{split}.jsonl"].append(row)
    return files


def tvc(data: Dataset, per_video: int, rng: np.random.Generator) -> dict[str, list[dict]]:
    """Make TVC's clips: two captions each to train on, four to validate, none to test."""
    ids = count(60000)
    files: dict[str, list[dict]] = {}
    for split, videos in data.splits.items():
        files[f"tvc_{split}.jsonl"] = rows = []
        for video in videos:
            for number in rng.permutation(len(video.scenes))[:per_video]:
                scene, clip_id = video.scenes[number], next(ids)
                row = {
                    "vid_name": video.name,
                    "duration": video.duration,
                    "ts": moment(scene, video, rng),
                    "clip_id": clip_id,
                }
                if split != "test_public":
                    row["descs"] = _captions(scene, clip_id, 2 if split == "train" else 4, rng)
                rows.append(row)
    return files


def _captions(scene: Scene, clip_id: int, how_many: int, rng: np.random.Generator) -> list[dict]:
    templates = DESCRIPTIONS["v"]
    return [
        {
            "desc": tell(templates[number], scene),
            "from_retrieval": place == 0,
            "desc_id": 10 * clip_id + place,
            "type": "v",
        }
        for place, number in enumerate(rng.permutation(len(templates))[:how_many])
    ]


def violin(data: Dataset, per_video: int, rng: np.random.Generator) -> dict[str, list[dict]]:
    """Make VIOLIN's pairs: ``…-1`` is true of the video, in ``…-0`` one word is not."""
    files: dict[str, list[dict]] = {}
    for split, videos in data.splits.items():
        rows: list[dict] = []
        files[f"violin_{split}.jsonl"] = rows
        for video in videos:
            for number, told in enumerate(describe(video, per_video, rng, STATEMENTS)):
                lie = false_version(told.template, told.scene, video, rng)
                rows.extend(
                    {
                        "desc_id": f"{video.name}-{number}-{label}",
                        "desc": text,
                        "vid_name": video.name,
                        "label": label,
                    }
                    for label, text in enumerate((lie, told.text))
                )
    return files


def msrvtt(data: Dataset, per_video: int, rng: np.random.Generator) -> dict[str, list[dict]]:
    """Make MSR-VTT's captions; a test video has one, under a retrieval key."""
    ids = count(1)
    files: dict[str, list[dict]] = {}
    for split, videos in data.splits.items():
        files[f"msrvtt_{split}.jsonl"] = rows = []
        for video in videos:
            for told in describe(video, 1 if split == "test" else per_video, rng, SEEN):
                number = next(ids)
                key = {"retrieval_key": f"ret{number}"} if split == "test" else {"sen_id": number}
                rows.append({"clip_name": video.name, **key, "caption": told.text})
    return files


def didemo(data: Dataset, per_video: int, rng: np.random.Generator) -> dict[str, list[dict]]:
    """Make DiDeMo's moments: four or five annotators each, in units of five seconds."""
    ids = count(70000)
    files: dict[str, list[dict]] = {}
    for split, videos in data.splits.items():
        rows: list[dict] = []
        files[f"didemo_{split}.jsonl"] = rows
        for video in videos:
            rows.extend(
                {
                    "vid_name": video.name,
                    "duration": video.duration,
                    "ts": _annotators(told.scene, video, rng),
                    "desc": told.text,
                    "type": told.type,
                    "desc_id": next(ids),
                }
                for told in describe(video, per_video, rng, SEEN)
            )
    return files


def _annotators(scene: Scene, video: Video, rng: np.random.Generator) -> list[list[float]]:
    """Let four or five people mark the scene; one of the last may be a unit off at an end."""
    spans = [[scene.start, scene.end] for _ in range(rng.integers(4, 6))]
    if rng.random() < 0.3:
        start, end = scene.start, scene.end
        spans[-1] = [start, end + 5.0] if end < video.duration else [start - 5.0, end]
    return spans


def vlep(data: Dataset, per_video: int, rng: np.random.Generator) -> dict[str, list[dict]]:
    """Make VLEP's pairs of events after a scene: the unlikely one has nothing of the video.

    The test split hides which one is likelier.
    """
    ids = count(20000)
    files: dict[str, list[dict]] = {}
    for split, videos in data.splits.items():
        files[f"vlep_{split}.jsonl"] = rows = []
        for video in videos:
            for told in describe(video, per_video, rng, {"v": EVENTS}, next_scene):
                likely, elsewhere = told.text, told.scene
                for slot in ("person", "verb", "thing", "place"):
                    elsewhere = swap_word(elsewhere, slot, video, rng)
                other = tell(told.template, elsewhere)
                answer = int(rng.integers(2))
                row = {
                    "example_id": next(ids),
                    "vid_name": video.name,
                    "ts": moment(told.scene, video, rng),
                    "events": [other, likely] if answer else [likely, other],
                    "answer": answer,
                    "split": split,
                }
                if split == "test":
                    del row["answer"]
                rows.append(row)
    return files


def _whole_videos(
    name: str, data: Dataset, per_video: int, rng: np.random.Generator
) -> dict[str, list[dict]]:
    """Describe videos as a whole; test splits hide the video of a sentence."""
    ids = count(10000)
    files: dict[str, list[dict]] = {}
    for split, videos in data.splits.items():
        files[f"{name}_{split}.jsonl"] = rows = []
        for video in videos:
            for told in describe(video, per_video, rng, SEEN):
                text = {"desc": told.text, "desc_id": next(ids)}
                of_video = {"vid_name": video.name, "duration": video.duration}
                rows.append(text if split.startswith("test") else of_video | text)
    return files


def yc2r(data: Dataset, _per_video: int, rng: np.random.Generator) -> dict[str, list[dict]]:
    """Make YC2R's sentences, one a segment."""
    return _whole_videos("yc2r", data, 1, rng)


def vatex_en_r(data: Dataset, per_video: int, rng: np.random.Generator) -> dict[str, list[dict]]:
    """Make VATEX-EN-R's sentences, several a video."""
    files = _whole_videos("vatex_en_r", data, per_video, rng)
    del files["vatex_en_r_test_private.jsonl"]
    return files


def _whole_clips(
    name: str,
    data: Dataset,
    references: Mapping[str, int],
    rng: np.random.Generator,
) -> dict[str, list[dict]]:
    """Make clips to caption, each a whole video, with so many references by split."""
    ids = count(300)
    files: dict[str, list[dict]] = {}
    for split, how_many in references.items():
        files[f"{name}_{split}_release.jsonl"] = rows = []
        for video in data.splits[split]:
            clip_id = next(ids)
            row = {"vid_name": video.name, "clip_id": clip_id, "duration": video.duration}
            if how_many:
                row["descs"] = [
                    {"desc": told.text, "desc_id": 10 * clip_id + place}
                    for place, told in enumerate(describe(video, how_many, rng, SEEN))
                ]
            rows.append(row)
    return files


def yc2c(data: Dataset, _per_video: int, rng: np.random.Generator) -> dict[str, list[dict]]:
    """Make YC2C's segments: one reference each, none to test."""
    return _whole_clips("yc2c", data, {"val": 1, "test": 0}, rng)


def vatex_en_c(data: Dataset, per_video: int, rng: np.random.Generator) -> dict[str, list[dict]]:
    """Make VATEX-EN-C's videos: several references each, none in the private test."""
    references = {"test_public": per_video, "test_private": 0}
    return _whole_clips("vatex_en_c", data, references, rng)


def how2r(data: Dataset, per_video: int, rng: np.random.Generator) -> dict[str, list]:
    """Make How2R's moments: JSON lines per clip, and the CSV form in the video's seconds."""
    ids = count(80000)
    files: dict[str, list] = {}
    for split, clips in data.splits.items():
        files[f"how2r_{split}.jsonl"] = rows = []
        files[f"how2R_{split}_release.csv"] = published = []
        for clip in clips:
            for told in describe(clip, per_video, rng):
                span = moment(told.scene, clip, rng)
                rows.append(
                    {
                        "vid_name": clip.name,
                        "duration": clip.duration,
                        "ts": span,
                        "desc": told.text,
                        "desc_id": next(ids),
                    }
                )
                id_, offset = _video_and_offset(clip)
                whole = _span_text(offset, offset + 60)
                published.append([id_, whole, _span_text(*_shift(span, offset)), told.text])
    return files


def how2qa(data: Dataset, per_video: int, rng: np.random.Generator) -> dict[str, list]:
    """Make How2QA's questions with four answers: JSON lines per clip, and the CSV form."""
    files: dict[str, list] = {}
    for split in data.splits:
        files |= {f"how2qa_{split}.jsonl": [], f"how2QA_{split}_release.csv": []}
    for split, clip, scene, row in _questions(data, per_video, 4, rng):
        span = moment(scene, clip, rng)
        files[f"how2qa_{split}.jsonl"].append(row | {"ts": f"{span[0]}-{span[1]}"})
        answers = [row[f"a{i}"] for i in range(4)]
        right = answers.pop(row["answer_idx"])
        id_, offset = _video_and_offset(clip)
        files[f"how2QA_{split}_release.csv"].append(
            [id_, _span_text(*_shift(span, offset)), *answers, row["q"], right]
        )
    return files


def _video_and_offset(clip: Video) -> tuple[str, int]:
    id_, number = clip.name.rsplit(".", 1)
    return id_, 60 * int(number)


def _shift(span: list[float], offset: int) -> list[float]:
    return [round(second + offset, 2) for second in span]


def _span_text(start: float, end: float) -> str:
    return f"[{start}:{end}]"


# Which data set each task's annotations are made on.
Maker = Callable[[Dataset, int, np.random.Generator], dict[str, list]]
TASKS: dict[str, tuple[str, Maker]] = {
    "tvr": ("tv", tvr),
    "tvqa": ("tv", tvqa),
    "tvc": ("tv", tvc),
    "violin": ("violin", violin),
    "msrvtt": ("msrvtt", msrvtt),
    "didemo": ("didemo", didemo),
    "how2r": ("how2", how2r),
    "how2qa": ("how2", how2qa),
    "yc2r": ("yc2", yc2r),
    "vatex_en_r": ("vatex", vatex_en_r),
    "vlep": ("vlep", vlep),
    "yc2c": ("yc2", yc2c),
    "vatex_en_c": ("vatex", vatex_en_c),
}


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
