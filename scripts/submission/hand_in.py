"""Write VALUE's submission, and say what it scores."""

import argparse
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tabulate import tabulate

from config.value import META_AVERAGE, TASKS
from data.video_indices import VIDEO_INDICES
from scripts.submission.value import (
    AnnotationFolders,
    Content,
    Part,
    Submission,
    find_predictions,
)
from utils.files import atomic_write, check_output, write_json

_PHASES = ("val", "test")  # what a submission's first and second splits are called together


def hand_in(options: argparse.Namespace) -> None:
    """Check all predictions, write the zip, and score them, as the command line asks.

    Raises:
        UserError: something lacks, or is malformed; then no zip is written. Scores, if they are
            asked for, come first.
    """
    check_output(*(path for path in (options.output, options.json) if path is not None))
    folders = AnnotationFolders([Path(folder) for folder in options.annotation])
    with ExitStack() as stack:
        files = find_predictions(options.results, options.checkpoint, stack)
        submission = Submission(files, folders, options.partial)
        if not options.score:
            submission.require_both_splits()
        incomplete = submission.missing and not options.partial
        with ExitStack() as archive:
            out = None
            if options.output is not None and not incomplete:
                out = archive.enter_context(_new_zip(options.output))
            scores = _take(submission, out, options.score)
    if options.score:
        show_scores(scores, options.json)
    if options.output is not None:
        submission.require_both_splits()
        print(f"wrote {options.output}: {', '.join(map(str, submission.files))}")
    if submission.absent:
        print(f"without {', '.join(submission.absent)}: no results were given")


@contextmanager
def _new_zip(path: str) -> Iterator[zipfile.ZipFile]:
    with (
        atomic_write(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as out,
    ):
        yield out


def _take(
    submission: Submission, out: zipfile.ZipFile | None, score: bool
) -> dict[Part, dict[str, Any] | str]:
    """Write and score part by part, so that one is in memory at a time.

    Returns:
        For every part its ``score`` and ``detail``, or the reason why it has none.
    """
    scores: dict[Part, dict[str, Any] | str] = {}
    for content in submission.contents():
        if out is not None:
            with out.open(content.part.member, "w", force_zip64=True) as member:
                content.write(member)
        if score:
            scores[content.part] = _score(content)
    return scores


def _score(content: Content) -> dict[str, Any] | str:
    # It needs the scorers of captions, which nothing else here does.
    from evaluation.value_scores import score_split, truth_fields

    task, lines = content.part.task, content.annotations
    if lines is None:
        return "there are no annotations"
    for fields in truth_fields(task):
        without = sum(all(line.get(name) is None for name in fields) for line in lines.values())
        if without:
            return f"{without} of {len(lines)} annotations have no {' or '.join(fields)}"
    if "vid_name" in truth_fields(task)[0] and content.indices is None:
        return f"--annotation has no {task.name}_{VIDEO_INDICES} or {task.corpus}_{VIDEO_INDICES}"
    score = score_split(task, content.predictions, lines, content.indices)
    return {"score": score.value, "detail": score.detail}


def show_scores(scores: Mapping[Part, dict[str, Any] | str], path: str | None) -> None:
    """Print a table and Meta-Ave of the first and of the second splits; write them as JSON.

    Args:
        scores: of each part, or why it has none.
        path: of the JSON file; None: none.
    """
    rows = [
        (part.task.name, part.split, part.task.metric, given["score"])
        for part, given in scores.items()
        if not isinstance(given, str)
    ]
    print(tabulate(rows, headers=("task", "split", "metric", "score"), floatfmt=".2f"))
    for part, given in scores.items():
        if isinstance(given, str):
            print(f"not scored: {part}: {given}")
    summary = {}
    for number, phase in enumerate(_PHASES):
        own = {
            part.task.name: given
            for part, given in scores.items()
            if part.split == part.task.submitted[number] and not isinstance(given, str)
        }
        if own:
            summary[phase] = _summary(own)
            what = "the eleven tasks" if len(own) == len(TASKS) else f"{', '.join(own)} alone"
            print(f"{META_AVERAGE} ({phase}): {summary[phase][META_AVERAGE]:.2f}, mean of {what}")
    if path is not None:
        write_json(path, summary, indent=1)
        print(f"wrote {path}")


def _summary(scores: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    from evaluation.value_metrics import meta_average

    values = {name: given["score"] for name, given in scores.items()}
    detail = {name: given["detail"] for name, given in scores.items()}
    return {"scores": values, META_AVERAGE: meta_average(values), "detail": detail}
