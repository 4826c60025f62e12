"""With --benchmark value, one zip of what the runs of its tasks predicted, and its scores.

In the zip, <task>/<task>_<split>_predictions.json (captions: .jsonl) for two splits of each task:
  {"VCMR": [{"desc_id", "predictions": [[index, start, end], …]}, …],      moments; at most 100
   "VR":   [{"desc_id", "predictions": [index, …]}, …]}                    videos: VR alone
  {id: answer}                                                             questions, statements
  {"vid_name", "clip_id", "descs": [{"desc"}]} a line, TVC's with "ts"     captions
--results are, in any number and order: runs' folders (with
results_<task>_<split>/results_<step>_all.json and <task>_<split>_….jsonl in them), such folders or
files, earlier submissions (folder or zip), and TASK_SPLIT=FILE where a name does not say. Where
there are several of a split, --checkpoint chooses the step, or TASK_SPLIT=FILE the file. Any of the
tasks may be left out, but neither of the two splits of a task and no id of a split, unless
--partial is given.
--annotation are folders of annotations (<task>_<split>.jsonl or …_release.jsonl; <task>.jsonl: of
the first of its splits) or of databases (<task>_<split>.db), with the videos' indices next to them
(<task>_ or <corpus>_vid2dur_idx.json, or <corpus>_subtitles.db).
--score scores each split whose annotations say what is right; the mean of all eleven tasks is the
leaderboard's Meta-Ave.
"""

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Annotated, Any

import msgspec
from msgspec import Meta

from config.groups import Channel, Kind
from config.value import OTHER_NAMES, TASKS, ValueTask
from data.prepare.archives import extract
from data.stores.records import Name
from data.video_indices import VIDEO_INDICES, has_split, split_indices
from scripts.preparation.datasets import CORPORA
from scripts.submission.entries import (
    MAX_PREDICTIONS,
    Annotations,
    best_predictions,
    format_answers,
    format_captions,
    read_annotations,
    read_rankings,
    require_whole,
)
from utils.decoding import Finite
from utils.errors import UserError
from utils.files import read_json
from utils.logger import LOGGER
from utils.names import CLIP_NAMES, names_of_task

_NAMED = 3  # files that a message lists
_DEEPEST = 3  # folders between a source and a results file, and that file's own name
_TWO_STREAMS = "_two_stream"
_PREDICTIONS = "_predictions"


@dataclass(frozen=True, eq=False)
class Part:
    """One of the two splits of a task in a submission."""

    task: ValueTask
    split: str

    def __str__(self) -> str:
        return f"{self.task.name}_{self.split}"

    @property
    def member(self) -> str:
        """Name of its file in the zip."""
        lines = "l" * (self.task.kind is Kind.CAPTIONS)
        return f"{self.task.name}/{self}{_PREDICTIONS}.json{lines}"


PARTS = tuple(Part(task, split) for task in TASKS.values() for split in task.submitted)


def _spellings(part: Part) -> Iterator[str]:
    """Yield the names of folders and files of a part."""
    own = [name for name, meant in OTHER_NAMES.items() if meant == part.task.name]
    for name in (part.task.name, *own):
        for channel in ("", *(f"_{channel}" for channel in Channel)):
            for ending in ("", "_1k"):
                yield f"{name}{channel}_{part.split}{ending}"


_PART_OF = {spelling: part for part in PARTS for spelling in _spellings(part)}


@dataclass(frozen=True)
class Predictions:
    """A file of predictions, described by its name."""

    path: Path
    part: Part | None  # None: unknown
    checkpoint: str = ""  # the step in its name
    two_stream: bool = False

    @classmethod
    def at(cls, path: Path) -> "Predictions":
        """Parse the names of a file and its folder."""
        stem, folder = path.stem, path.absolute().parent.name
        if stem.endswith(_PREDICTIONS):
            return cls(path, _PART_OF.get(stem.removesuffix(_PREDICTIONS)))
        if stem.startswith("results_") and stem.endswith("_all") and folder.startswith("results_"):
            step = stem.removeprefix("results_").removesuffix("_all")
            name = folder.removeprefix("results_")
            part = _PART_OF.get(name.removesuffix(_TWO_STREAMS))
            return cls(path, part, step, name.endswith(_TWO_STREAMS))
        if path.suffix != ".jsonl" or stem.endswith("_release"):
            return cls(path, None)
        # Captions: <task>_<split>, and anything after it.
        prefixes = [name for name in _PART_OF if f"{stem}_".startswith(f"{name}_")]
        part = _PART_OF[max(prefixes, key=len)] if prefixes else None
        is_caption = part is not None and part.task.kind is Kind.CAPTIONS
        _, named, step = stem.rpartition("_step")
        two_stream = folder.endswith(_TWO_STREAMS)
        return cls(path, part if is_caption else None, step if named else "", two_stream)


def _files(source: Path) -> Iterator[Path]:
    """Yield a file, or the JSON files of a folder, down to a few levels."""
    if source.is_file():
        yield source
        return
    for depth in range(1, _DEEPEST + 1):
        for path in sorted(source.glob("/".join("*" * depth))):
            if path.suffix in (".json", ".jsonl") and path.is_file():
                yield path


def find_predictions(
    sources: Iterable[str], checkpoint: str | None, unpacked: ExitStack
) -> dict[Part, Path]:
    """Return the file of every part that has one, in the order of a submission.

    Args:
        sources, checkpoint: the values of ``--results`` and ``--checkpoint``.
        unpacked: keeps unpacked zips until it is closed.

    Raises:
        UserError: a source does not exist or has no predictions, or there are several of a part.
    """
    chosen: dict[Part, Path] = {}
    candidates: dict[Part, list[Predictions]] = {}
    for source in sources:
        name, assigned, file = source.partition("=")
        own = _PART_OF.get(name) if assigned else None
        path = Path(source if own is None else file)
        if not path.exists():
            raise UserError(f"--results {path} does not exist")
        if own is not None:
            chosen[own] = path
            continue
        if path.is_file() and zipfile.is_zipfile(path):
            folder = Path(unpacked.enter_context(TemporaryDirectory()))
            extract(path, folder)
            path = folder
        count = 0
        for each in map(Predictions.at, _files(path)):
            if each.part is not None:
                candidates.setdefault(each.part, []).append(each)
                count += 1
        if not count:
            raise UserError(
                f"--results {source} has no predictions: evaluate its run or leave it out; for a "
                "file whose name does not say its task and split (--help lists the names), give "
                "TASK_SPLIT=FILE, such as tvr_val=FILE"
            )
    for part, several in candidates.items():
        if part not in chosen:
            chosen[part] = _only(part, several, checkpoint)
    return {part: chosen[part] for part in PARTS if part in chosen}


def _only(part: Part, several: Sequence[Predictions], checkpoint: str | None) -> Path:
    of_step = [each for each in several if checkpoint in (None, each.checkpoint)] or several
    single = [each for each in of_step if not each.two_stream]
    paths = list(dict.fromkeys(each.path.resolve() for each in single or of_step))
    if single and len(single) < len(of_step):
        LOGGER.warning(
            "%s is taken, not the results of two streams next to it: name these as %s=FILE",
            *(paths[0], part),
        )
    if len(paths) > 1:
        named = ", ".join(map(str, paths[:_NAMED])) + ", …" * (len(paths) > _NAMED)
        raise UserError(
            f"there are {len(paths)} files of {part} ({named}): choose by --checkpoint STEP, or "
            f"name one as {part}=FILE"
        )
    return paths[0]


@dataclass(frozen=True)
class AnnotationFolders:
    """Folders of annotations or databases."""

    folders: Sequence[Path]

    def __post_init__(self) -> None:
        for folder in self.folders:
            if not folder.is_dir():
                raise UserError(f"--annotation {folder} is no folder of annotations or databases")

    def _paths(self, names: Iterable[str]) -> Iterator[Path]:
        """Yield the paths that exist, those in earlier folders first."""
        names = list(names)
        paths = (folder / name for folder in self.folders for name in names)
        return (path for path in paths if path.exists())

    def lines(self, part: Part) -> Annotations | None:
        """Return the annotations of a split by id, if there are any; UserError if malformed."""
        task = part.task
        own = task.evaluated[part.split]  # in How2R's the split is called val_1k
        names: tuple[str, ...] = (own, f"{Path(own).stem}.jsonl")
        names += (f"{part}.jsonl", f"{part}_release.jsonl", f"{part}.db")
        if part.split == task.submitted[0]:  # the one that has public annotations
            names += (f"{task.name}.jsonl",)
        path = next(self._paths(names), None)
        if path is None:
            return None
        if path.is_dir():
            path /= "query_data.jsonl"
        if task.kind is Kind.CAPTIONS:
            return read_annotations(path, CLIP_NAMES.ids, "vid_name")
        return read_annotations(path, names_of_task(task.name).ids)

    def indices(self, part: Part) -> dict[str, int] | None:
        """Return the index of every video of a split's corpus, if a table has it; UserError if
        a table is malformed."""
        corpus = part.task.corpus
        names = [f"{part.task.name}_{VIDEO_INDICES}", f"{corpus}_{VIDEO_INDICES}"]
        names += [f"{part.task.subtitles}/{VIDEO_INDICES}"]
        names += CORPORA[corpus].durations if corpus in CORPORA else ()
        tables = {path: read_json(path) for path in self._paths(names)}
        for path, table in tables.items():
            if has_split(table, part.split, path):
                return split_indices(table, part.split, path, required=True)
        if tables:
            LOGGER.warning("%s has no split %s", ", ".join(map(str, tables)), part.split)
        return None


class MomentRanking(msgspec.Struct):
    """A query's moments: index of the video, start, end; a score may follow."""

    desc_id: Name
    predictions: list[Annotated[list[Finite], Meta(min_length=3, max_length=4)]]


class VideoRanking(msgspec.Struct):
    """A query's videos: their indices, or rows that begin with them."""

    desc_id: Name
    predictions: list[int | Annotated[list[Finite], Meta(min_length=1)]]


class Rankings(msgspec.Struct):
    """A results file of retrieval; each list has a ranking for a query."""

    VCMR: list[dict[str, Any]] | None = None
    VR: list[dict[str, Any]] | None = None
    partial: dict[str, dict[str, int]] | None = None


_RANKINGS = {Kind.MOMENTS: ("VCMR", "VR"), Kind.VIDEOS: ("VR",)}


@dataclass(frozen=True)
class Content:
    """The content of one file of a submission."""

    part: Part
    predictions: Any  # an object, or lines of captions
    annotations: Annotations | None
    indices: dict[str, int] | None = None  # of the corpus of videos, in retrieval

    def write(self, out: IO[bytes]) -> None:
        """Write it as JSON, or JSON lines."""
        is_lines = isinstance(self.predictions, list)
        for value in self.predictions if is_lines else (self.predictions,):
            out.write(json.dumps(value).encode() + b"\n" * is_lines)


def read_content(part: Part, path: Path, folders: AnnotationFolders, partial: bool) -> Content:
    """Read a results file and check it against the annotations.

    Raises:
        UserError: it is malformed, or, unless ``partial``, lacks ids or cannot be checked.
    """
    lines = folders.lines(part)
    if lines is None and not partial:
        raise UserError(
            f"cannot check that {path} has every id of {part}: --annotation has neither "
            f"{part}.jsonl nor {part.task.evaluated[part.split]}; add the folder, or pass --partial"
        )
    if lines is None:
        LOGGER.warning("%s: no annotations of %s to check it with", path, part)
    if part.task.kind in _RANKINGS:
        indices = folders.indices(part)
        rankings = _read_rankings(part, path, lines, indices, partial)
        return Content(part, rankings, lines, indices)
    if part.task.kind is Kind.CAPTIONS:
        return Content(part, format_captions(path, lines, partial), lines)
    answers = format_answers(path, lines, lambda _: part.task.choices, partial)
    return Content(part, answers, lines)


def _read_rankings(
    part: Part,
    path: Path,
    lines: Annotations | None,
    indices: Mapping[str, int] | None,
    partial: bool,
) -> dict[str, list[dict]]:
    results = read_json(path, Rankings)
    require_whole(path, results.partial, partial)
    known = frozenset((indices or {}).values())
    names = _RANKINGS[part.task.kind]
    rankings = {}
    for name in names:
        entries = getattr(results, name)
        if entries is None:
            if partial and name != names[0]:
                continue
            raise UserError(f"{path} has no {name}: evaluate with --full_eval_tasks VCMR VR")
        kind: type[MomentRanking | VideoRanking] = MomentRanking if name == "VCMR" else VideoRanking
        where = f"{path}: {name}"
        by_id = read_rankings(entries, kind, where, lines, partial)
        rankings[name] = [_entry(ranking, known, where) for ranking in by_id.values()]
    return rankings


def _entry(ranking: MomentRanking | VideoRanking, known: frozenset[int], where: str) -> dict:
    rows: Sequence[Sequence[float]] = [
        [row] if isinstance(row, int) else row for row in ranking.predictions[:MAX_PREDICTIONS]
    ]
    if known:
        rows = best_predictions(rows, known, f"{where}, query {ranking.desc_id}", VIDEO_INDICES)
    videos_only = isinstance(ranking, VideoRanking)
    predictions = [int(row[0]) for row in rows] if videos_only else rows
    return {"desc_id": ranking.desc_id, "predictions": predictions}
