#!/usr/bin/env python3
"""Convert a results file to an evaluation server's format, and check that nothing is missing.

python scripts/format_submission.py --task tvr --annotation tvr_test_public_release.jsonl \\
    --results RUN/results_test_public/results_4800_all.json --output submission.json
python scripts/format_submission.py --benchmark value --results RUN… --annotation FOLDER… \\
    --output submission.zip --score

With --task, one split of one task:
  tvr              {"video2idx", "VCMR", "SVMR" and "VR" where the results have them}, at most 100
                   predictions [video index, start, end, score] per query
  tvqa, how2qa     {qid: answer's index}
  violin           {desc_id: 0 | 1}
  tvc              a line {"vid_name", "clip_id", "ts", "descs": [{"desc"}]} per clip
Queries, questions, statements and clips are those of the annotation (JSON lines), in its order.
Results of a part of the split are refused, unless --partial is given: those that lack ids of the
annotation or, in tvr, searched fewer videos than the split has: by the annotation's vid_name, and
by --vid2dur_idx, {split: {video: [seconds, index]}}, by default next to the annotation.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.stores.records import Id, Name
from data.video_indices import VIDEO_INDICES
from data.video_pool import feature_name
from evaluation.retrieval_metrics import TASKS
from scripts.preparation.datasets import CORPORA
from scripts.submission import value
from scripts.submission.entries import (
    Annotations,
    best_predictions,
    count_answers,
    format_answers,
    format_captions,
    read_annotations,
    read_rankings,
    require_none,
    require_whole,
)
from scripts.submission.hand_in import hand_in
from utils.decoding import Finite
from utils.errors import UserError, run_main
from utils.files import check_output, read_json, write_json, write_jsonl
from utils.names import CLIP_NAMES, names_of_task


def require_whole_search(
    searched: Mapping[str, int], wanted: Annotations, where: str, indices: Path | None
) -> None:
    """Raise UserError if videos of the split were not searched: those that lines of the annotation
    name, and those of ``vid2dur_idx.json`` (``indices``), if there is one."""
    named = {str(vid) for line in wanted.values() if (vid := line.get("vid_name")) is not None}
    split = "the annotation"
    if indices is not None:
        table = read_json(indices, dict[str, dict[Id, list]])
        shared = {
            name: sum(entry[1:] == [searched.get(vid)] for vid, entry in entries.items())
            for name, entries in table.items()
        }
        name = max(shared, key=shared.__getitem__, default="")
        if shared.get(name):
            split = f"split {name} of {indices}"
            named |= table[name].keys()
    require_none(
        [vid for vid in {feature_name(vid, searched) for vid in named} if vid not in searched],
        f"{where} searched {len(searched)} videos, {split} has {{}} more: evaluate on all of them, "
        "or pass --partial",
    )


class Ranking(msgspec.Struct):
    """A query's predictions."""

    desc_id: Name
    predictions: list[Annotated[list[Finite], Meta(min_length=4, max_length=4)]]


class RetrievalResults(msgspec.Struct):
    """A results file of eval_vcmr.py; each list has a Ranking for a query."""

    video2idx: dict[Id, int]
    VCMR: list[dict[str, Any]]
    SVMR: list[dict[str, Any]] | None = None
    VR: list[dict[str, Any]] | None = None
    partial: dict[str, dict[str, int]] | None = None


def format_moments(
    path: str, wanted: Annotations, partial: bool, vid2dur_idx: Path | None
) -> dict[str, Any]:
    """Return TVR's rankings, each query's best predictions only."""
    results = read_json(path, RetrievalResults)
    require_whole(path, results.partial, partial)
    if not partial:
        require_whole_search(results.video2idx, wanted, path, vid2dur_idx)
    indices = set(results.video2idx.values())
    submission: dict[str, Any] = {"video2idx": results.video2idx}
    for task in TASKS:
        entries = getattr(results, task)
        if entries is None:
            continue
        where = f"{path}: {task}"
        submission[task] = [
            {
                "desc_id": wanted[id_]["desc_id"],
                "desc": wanted[id_]["desc"],
                "predictions": best_predictions(
                    ranking.predictions, indices, f"{where}, query {id_}"
                ),
            }
            for id_, ranking in read_rankings(entries, Ranking, where, wanted, partial).items()
        ]
    return submission


def find_indices(annotation: str) -> Path | None:
    """Return the file of the videos' indices next to an annotation of TV videos, if it exists."""
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
    """Return the submission to the server of ``task``: an object, or a list of lines (tvc).

    See the options of this script; ``vid2dur_idx`` defaults to :func:`find_indices`.

    Raises:
        UserError: results and annotation do not match, or something is missing.
    """
    if task == "tvc":
        clips = read_annotations(annotation, CLIP_NAMES.ids, "vid_name", "ts")
        return format_captions(results, clips, partial)
    ids = names_of_task(task).ids
    if task == "tvr":
        queries = read_annotations(annotation, ids, "desc")
        return format_moments(results, queries, partial, vid2dur_idx or find_indices(annotation))
    choices = (lambda _: 2) if task == "violin" else count_answers
    return format_answers(results, read_annotations(annotation, ids), choices, partial)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the options of the command line.

    Raises:
        UserError: they contradict each other.
    """
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\n{value.__doc__}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    tasks = ("tvr", "tvqa", "tvc", "how2qa", "violin")
    server = parser.add_mutually_exclusive_group(required=True)
    server.add_argument("--task", choices=tasks, help="a server for one split of one task")
    server.add_argument("--benchmark", choices=("value",), help="a server for all tasks at once")
    add = parser.add_argument
    add("--results", required=True, nargs="+", help="output of the evaluation scripts")
    add("--annotation", nargs="+", default=[], help="JSON lines of the split; value: folders")
    add("--output", help="file to submit")
    add("--partial", action="store_true", help="accept results of a part of the split")
    add("--vid2dur_idx", type=Path, help="the videos of each split (tvr)")
    add = parser.add_argument_group("with --benchmark value").add_argument
    add("--checkpoint", metavar="STEP", help="where there are results of several")
    add("--score", action="store_true", help="score the splits that have annotations")
    add("--json", metavar="FILE", help="write the scores and all metrics")
    options = parser.parse_args(argv)
    _check(options)
    return options


def _check(options: argparse.Namespace) -> None:
    if options.benchmark:
        if options.output is None and not options.score:
            raise UserError("nothing to do: give --output, the zip to write, or --score")
        if options.vid2dur_idx:
            raise UserError("--vid2dur_idx needs --task: here --annotation has such files")
        if options.json is not None and not options.score:
            raise UserError("--json needs --score")
        return
    if options.score or options.json is not None or options.checkpoint:
        raise UserError("--score, --json and --checkpoint need --benchmark value")
    if options.output is None:
        raise UserError("--output is missing: the file to submit")
    for name in ("results", "annotation"):
        if len(getattr(options, name)) != 1:
            raise UserError(f"--{name} takes one file with --task {options.task}")


def main(argv: list[str] | None = None) -> None:
    """Write the submission file."""
    options = parse_arguments(argv)
    if options.benchmark:
        hand_in(options)
        return
    check_output(options.output)
    files = options.results[0], options.annotation[0]
    submission = format_submission(options.task, *files, options.partial, options.vid2dur_idx)
    write = write_jsonl if isinstance(submission, list) else write_json
    write(options.output, submission)
    print(f"wrote {options.output}")


if __name__ == "__main__":
    run_main(main)
