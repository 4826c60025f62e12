"""Write VALUE's submission and score it."""

import argparse
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tabulate import tabulate

from config.value import META_AVERAGE, TASKS
from data.video_indices import VIDEO_INDICES
from scripts.submission.value import (
    PARTS,
    AnnotationFolders,
    Content,
    Part,
    find_predictions,
    read_content,
)
from utils.errors import UserError
from utils.files import atomic_write, check_output, write_json

_PHASES = ("val", "test")  # what a submission's first and second splits are called together


def hand_in(options: argparse.Namespace) -> None:
    """Check all predictions, write the zip, and score them, according to the command line.

    Raises:
        UserError: something is missing or malformed (shown after the scores); no zip is written.
    """
    check_output(*(path for path in (options.output, options.json) if path is not None))
    folders = AnnotationFolders([Path(folder) for folder in options.annotation])
    with ExitStack() as unpacked:
        files = find_predictions(options.results, options.checkpoint, unpacked)
        tasks = {part.task.name for part in files}
        missing = [part for part in PARTS if part.task.name in tasks and part not in files]
        incomplete = UserError(
            f"the submission lacks {', '.join(map(str, missing))}: give their results, or pass "
            "--partial"
        )
        refused = bool(missing) and not options.partial
        if refused and not options.score:
            raise incomplete
        contents = (read_content(*file, folders, options.partial) for file in files.items())
        with _new_zip(None if refused else options.output) as out:
            scores = _take(contents, out, options.score)
    if options.score:
        show_scores(scores, options.json)
    if options.output is not None:
        if refused:
            raise incomplete
        print(f"wrote {options.output}: {', '.join(map(str, files))}")
    if absent := [name for name in TASKS if name not in tasks]:
        print(f"without {', '.join(absent)}: no results were given")


@contextmanager
def _new_zip(path: str | None) -> Iterator[zipfile.ZipFile | None]:
    if path is None:
        yield None
        return
    with (
        atomic_write(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as out,
    ):
        yield out


def _take(
    contents: Iterable[Content], out: zipfile.ZipFile | None, score: bool
) -> dict[Part, dict[str, Any] | str]:
    """Write and score part by part, so that one is in memory at a time; return each part's
    ``score`` and ``detail``, or the reason why it has none."""
    scores: dict[Part, dict[str, Any] | str] = {}
    for content in contents:
        if out is not None:
            with out.open(content.part.member, "w", force_zip64=True) as member:
                content.write(member)
        if score:
            scores[content.part] = _score(content)
    return scores


def _score(content: Content) -> dict[str, Any] | str:
    # It needs the scorers of captions, which checking alone does not.
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
    """Print a table of scores (or why there is none) and Meta-Ave of the first and of the second
    splits; write them as JSON if a path is given."""
    # It needs the scorers of captions, which checking alone does not.
    from evaluation.value_metrics import meta_average

    scored = {part: given for part, given in scores.items() if not isinstance(given, str)}
    rows = [
        (part.task.name, part.split, part.task.metric, given["score"])
        for part, given in scored.items()
    ]
    print(tabulate(rows, headers=("task", "split", "metric", "score"), floatfmt=".2f"))
    for part, given in scores.items():
        if part not in scored:
            print(f"not scored: {part}: {given}")
    summary = {}
    for number, phase in enumerate(_PHASES):
        own = {
            part.task.name: given
            for part, given in scored.items()
            if part.split == part.task.submitted[number]
        }
        if own:
            values = {name: given["score"] for name, given in own.items()}
            detail = {name: given["detail"] for name, given in own.items()}
            mean = meta_average(values)
            summary[phase] = {"scores": values, META_AVERAGE: mean, "detail": detail}
            what = "the eleven tasks" if len(own) == len(TASKS) else f"{', '.join(own)} alone"
            print(f"{META_AVERAGE} ({phase}): {mean:.2f}, mean of {what}")
    if path is not None:
        write_json(path, summary, indent=1)
        print(f"wrote {path}")
