#!/usr/bin/env python3
"""Turn a results file into what an evaluation server takes, and check that nothing is missing.

python scripts/format_submission.py --task tvr --annotation tvr_test_public_release.jsonl \\
    --results RUN/results_test_public/results_4800_all.json --output submission.json

  tvr              {"video2idx", "VCMR", "SVMR" and "VR" where the results have them}, at most 100
                   predictions [video index, start, end, score] per query
  tvqa, how2qa     {qid: answer's index}
  violin           {desc_id: 0 | 1}
  tvc              a line {"vid_name", "clip_id", "ts", "descs": [{"desc"}]} per clip
Queries, questions, statements and clips are those of the annotation (JSON lines), in its order.
Results of a part of the split are refused, unless --partial is given: those that lack ids of the
annotation or, in tvr, searched fewer videos than the split has: by the annotation's vid_name, and
by --vid2dur_idx, {split: {video: [seconds, index]}}, which is found beside the annotation.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.annotations import UniqueIds, read_lines
from data.stores.records import Id, Name
from data.video_indices import VIDEO_INDICES
from data.video_pool import feature_name
from evaluation.retrieval_metrics import TASKS
from scripts.preparation.datasets import CORPORA
from utils.decoding import Finite, check
from utils.errors import RecordError, UserError, brief, run_main
from utils.files import check_output, read_json, write_json, write_jsonl
from utils.names import CLIP_NAMES, get_name, names_of_task

MAX_PREDICTIONS = 100
NAMED = 5  # ids that a message lists

Annotations = dict[str, dict]  # lines by id, in file order


def read_annotations(path: str, id_names: tuple[str, ...], *more: str) -> Annotations:
    """Lines of an annotation file by id.

    Args:
        path: JSON lines.
        id_names: fields of the id.
        more: further fields that every line must have.

    Raises:
        UserError: a line lacks a field, two have the same id, or there is none.
    """

    def read(raw: dict) -> tuple[str, dict]:
        lacking = [name for name in (id_names[0], *more) if raw.get(name) is None]
        if lacking:
            raise RecordError(f"it has no {lacking[0]}; is it the annotation of this task?")
        return get_name(raw, *id_names), raw

    lines: Annotations = {}
    ids = UniqueIds()
    for line in read_lines(path):
        id_, raw = line.read(read)
        ids.claim(id_, line)
        lines[id_] = raw
    return lines


def answered_ids(found: Iterable[str], wanted: Annotations, where: str, partial: bool) -> list[str]:
    """Return the annotated ids that results are about: all, each once.

    Args:
        found: ids of the results.
        wanted: the annotation.
        where: the results, for messages.
        partial: ids may be missing.

    Raises:
        UserError: says how many ids are missing, unknown or repeated, and names the first.
    """
    ids = list(found)
    known = set(ids)
    if not partial:
        _require_none(
            [id_ for id_ in wanted if id_ not in known],
            f"{where} lacks {{}} of {len(wanted)} ids of the annotation: evaluate the whole split, "
            "or pass --partial",
        )
    _require_none(
        [id_ for id_ in known if id_ not in wanted],
        f"{where} has {{}} ids that the annotation lacks: are they of one split?",
    )
    if len(ids) > len(known):
        raise UserError(f"{where} answers {len(ids) - len(known)} ids twice; keep one of each")
    return [id_ for id_ in wanted if id_ in known]


def require_whole_search(
    searched: Mapping[str, int], wanted: Annotations, where: str, indices: Path | None
) -> None:
    """Check that the whole split was searched.

    Args:
        searched: videos, and the index of each.
        wanted: the annotation, whose lines may name videos.
        where: the results, for messages.
        indices: ``vid2dur_idx.json``, if there is one.

    Raises:
        UserError: videos of the split were not searched.
    """
    named = {str(vid) for line in wanted.values() if (vid := line.get("vid_name")) is not None}
    split = "the annotation"
    if indices is not None:
        table = read_json(indices, dict[str, dict[Id, list]])
        shared = {
            name: sum(entry[1:] == [searched.get(vid)] for vid, entry in entries.items())
            for name, entries in table.items()
        }
        name = max(shared, key=shared.get, default=None)
        if name is not None and shared[name]:
            split = f"split {name} of {indices}"
            named |= table[name].keys()
    known = {feature_name(vid, searched) for vid in named}
    _require_none(
        [vid for vid in known if vid not in searched],
        f"{where} searched {len(searched)} videos, {split} has {{}} more: evaluate on all of them, "
        "or pass --partial",
    )


def _require_none(ids: list[str], message: str) -> None:
    if ids:
        named = ", ".join(sorted(ids)[:NAMED]) + ", …" * (len(ids) > NAMED)
        raise UserError(f"{message.format(len(ids))} ({named})")


class Ranking(msgspec.Struct):
    """What was found for a query."""

    desc_id: Name
    predictions: list[Annotated[list[Finite], Meta(min_length=4, max_length=4)]]


class RetrievalResults(msgspec.Struct):
    """A results file of eval_vcmr.py; each list holds a Ranking for a query."""

    video2idx: dict[Id, int]
    VCMR: list[dict[str, Any]]
    SVMR: list[dict[str, Any]] | None = None
    VR: list[dict[str, Any]] | None = None
    partial: dict[str, dict[str, int]] | None = None


def format_moments(
    path: str, wanted: Annotations, partial: bool, vid2dur_idx: Path | None
) -> dict[str, Any]:
    """TVR: the rankings, each query's best predictions only."""
    results = read_json(path, RetrievalResults)
    if not partial:
        if results.partial:
            raise UserError(
                f"{path} is of a part of the split ({brief(results.partial)}): evaluate without "
                "--only_available, or pass --partial"
            )
        require_whole_search(results.video2idx, wanted, path, vid2dur_idx)
    indices = set(results.video2idx.values())
    submission: dict[str, Any] = {"video2idx": results.video2idx}
    for ranking in TASKS:
        if getattr(results, ranking) is None:
            continue
        where = f"{path}: {ranking}"
        pairs = [
            read_ranking(raw, f"{where}[{number}]")
            for number, raw in enumerate(getattr(results, ranking))
        ]
        ids = answered_ids((id_ for id_, _ in pairs), wanted, where, partial)
        lists = dict(pairs)
        submission[ranking] = [
            {
                "desc_id": wanted[id_]["desc_id"],
                "desc": wanted[id_]["desc"],
                "predictions": best_predictions(lists[id_], indices, f"{where}, query {id_}"),
            }
            for id_ in ids
        ]
    return submission


def read_ranking(raw: dict[str, Any], where: str) -> tuple[str, list[list[float]]]:
    """A query's id and its predictions.

    Raises:
        UserError: they are none (names the query).
    """
    try:
        found = check(raw, Ranking)
    except RecordError as error:
        query = brief(raw.get("desc_id"))
        raise UserError(f"{where}.{error} (query {query}); evaluate again") from None
    return str(found.desc_id), found.predictions


def best_predictions(rows: list[list[float]], indices: set[int], where: str) -> list:
    """The first rows of a ranked list, [index of a video, start, end, score] each.

    Raises:
        UserError: an index is none of a video.
    """
    for row in rows[:MAX_PREDICTIONS]:
        if row[0] not in indices:
            raise UserError(f"{where}: {row} names no index of video2idx; evaluate again")
    return [[int(video), *rest] for video, *rest in rows[:MAX_PREDICTIONS]]


def format_answers(
    path: str, wanted: Annotations, choices: Callable[[dict], int], partial: bool
) -> dict:
    """Questions and statements: an answer to each.

    Args:
        path: results file.
        wanted: the annotation.
        choices: how many answers a line offers.
        partial: answers may be missing.
    """
    answers = read_json(path, dict[Id, int])
    ids = answered_ids(answers, wanted, path, partial)
    for id_ in ids:
        answer, count = answers[id_], choices(wanted[id_])
        if not 0 <= answer < count:
            raise UserError(f"{path}: the answer to {id_} is {answer}, not 0 … {count - 1}")
    return {id_: answers[id_] for id_ in ids}


def count_answers(line: Mapping[str, Any]) -> int:
    """Answers a0, a1, … of a question."""
    return next(number for number in range(len(line) + 1) if f"a{number}" not in line)


def format_captions(path: str, wanted: Annotations, partial: bool) -> list[dict]:
    """TVC: a caption of each clip."""

    def read(raw: dict) -> tuple[str, Any]:
        return get_name(raw, *CLIP_NAMES.ids), raw.get("descs")

    answered = [line.read(read) for line in read_lines(path)]
    ids = answered_ids((id_ for id_, _ in answered), wanted, path, partial)
    captions = dict(answered)
    return [
        {name: wanted[id_][name] for name in ("vid_name", "clip_id", "ts")}
        | {"descs": [{"desc": caption_text(captions[id_], f"{path}: clip {id_}")}]}
        for id_ in ids
    ]


def caption_text(descs: Any, where: str) -> str:
    """The one caption in ``descs``.

    Raises:
        UserError: there is none, or several.
    """
    if isinstance(descs, list) and len(descs) == 1 and isinstance(descs[0], dict):
        text = descs[0].get("desc")
        if isinstance(text, str):
            return text
    raise UserError(f'{where} must have one caption, descs [{{"desc": text}}], not {brief(descs)}')


def find_indices(annotation: str) -> Path | None:
    """The file of the videos' indices beside an annotation of TV videos."""
    names = (f"tv_{VIDEO_INDICES}", *CORPORA["tv"].durations)
    paths = (Path(annotation).parent / name for name in names)
    return next((path for path in paths if path.is_file()), None)


def format_submission(
    task: str,
    results: str,
    annotation: str,
    partial: bool = False,
    vid2dur_idx: Path | None = None,
) -> Any:
    """What the server of ``task`` takes: an object, or a list of lines (tvc).

    Args:
        task: of the server.
        results, annotation: files.
        partial: the results may be those of a part of the split.
        vid2dur_idx: which videos its splits have (tvr); None: see :func:`find_indices`.

    Raises:
        UserError: results and annotation do not belong together, or something is missing.
    """
    if task == "tvc":
        clips = read_annotations(annotation, CLIP_NAMES.ids, "vid_name", "ts")
        return format_captions(results, clips, partial)
    ids = names_of_task(task).ids
    if task == "tvr":
        queries = read_annotations(annotation, ids, "desc")
        return format_moments(results, queries, partial, vid2dur_idx or find_indices(annotation))
    choices = (lambda line: 2) if task == "violin" else count_answers
    return format_answers(results, read_annotations(annotation, ids), choices, partial)


def main(argv: list[str] | None = None) -> None:
    """Write the submission file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    tasks = ("tvr", "tvqa", "tvc", "how2qa", "violin")
    parser.add_argument("--task", required=True, choices=tasks)
    parser.add_argument("--results", required=True, help="what the evaluation script wrote")
    parser.add_argument("--annotation", required=True, help="JSON lines of the split")
    parser.add_argument("--output", required=True, help="file to hand in")
    parser.add_argument("--vid2dur_idx", type=Path, help="the videos of each split (tvr)")
    parser.add_argument(
        "--partial", action="store_true", help="take results of a part of the split"
    )
    options = parser.parse_args(argv)
    check_output(options.output)
    submission = format_submission(
        options.task, options.results, options.annotation, options.partial, options.vid2dur_idx
    )
    write = write_jsonl if isinstance(submission, list) else write_json
    write(options.output, submission)
    print(f"wrote {options.output}")


if __name__ == "__main__":
    run_main(main)
