"""Validation of several data sets: losses and scores of each in one table, and Meta-Ave."""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from tabulate import tabulate

from config.groups import Kind
from config.value import AVERAGE_RECALL, META_AVERAGE, DataSet, SetOptions, ValueOptions
from data.tvc import caption_texts
from data.value_sets import Databases, labels, open_judged
from data.vocabulary import Vocabulary
from engine.run import Run
from engine.validation import split_label
from evaluation.answer_split import AnswerSplit
from evaluation.caption_split import CaptionSplit
from evaluation.ranking import SearchSettings
from evaluation.retrieval_split import RetrievalSplit
from evaluation.value_metrics import meta_average
from model.multitask import HeroForMultiTask, set_weights
from utils.logger import LOGGER

Metrics = Mapping[str, float | str]


@dataclass
class ListedSet:
    """An entry of the list to validate on.

    Attributes:
        label: what its metrics are called after.
        entry: of the list.
        validate: metrics of a model of its task, given (model, step).
    """

    label: str
    entry: DataSet
    validate: Callable[[Any, int], Metrics]

    def score(self, metrics: Metrics) -> float | None:
        """The score that counts on the leaderboard; None without ground truth."""
        metric = self.entry.value_task.metric
        if metric == AVERAGE_RECALL:
            ranking = "VCMR" if self.entry.kind is Kind.MOMENTS else "VR"
            metric = f"{ranking}/{metric}"
        return float(metrics[metric]) if metric in metrics else None


def open_validation(run: Run[ValueOptions], databases: Databases) -> list[ListedSet]:
    """Open the sets to validate on.

    Raises:
        UserError: a database is missing or damaged.
    """
    entries = run.options.val_datasets
    names = labels(entries)
    return [
        ListedSet(names[entry.name], entry, _open(run, databases, entry, names[entry.name]))
        for entry in entries
    ]


def _open(
    run: Run[ValueOptions], databases: Databases, entry: DataSet, label: str
) -> Callable[[Any, int], Metrics]:
    """Return what validates an entry."""
    options = run.options.of(entry)
    own: Run[SetOptions] = replace(cast("Run[Any]", run), options=options, folder=copy(run.folder))
    if len(run.options.val_datasets) > 1:
        own.folder.results = run.folder.results / label
    weights = set_weights(entry, options)
    if entry.kind is Kind.CAPTIONS:
        clips = _open_clips(own, databases, entry)
        output = partial(_captions_file, own.folder.results, entry.split)
        return lambda model, step: clips.evaluate(model, output(step))
    if entry.kind in (Kind.QUESTIONS, Kind.STATEMENTS):
        judged = open_judged(databases, entry, training=False)
        return AnswerSplit(entry.split, judged, weights, own).validate
    of_moments = entry.kind is Kind.MOMENTS
    settings = (SearchSettings.for_moments if of_moments else SearchSettings.for_videos)(options)
    queries = databases.texts(entry.given("query_txt_db"))
    videos = databases.videos(entry, queries)
    split = RetrievalSplit(entry.split, queries, videos, own, settings)
    return lambda model, step: split.validate(model, weights, step)


def _captions_file(folder: Path, split: str, step: int) -> Path:
    return folder / f"results_{split_label(split, step)}_all.jsonl"


def _open_clips(run: Run[SetOptions], databases: Databases, entry: DataSet) -> CaptionSplit:
    training = databases.options.train_datasets
    learnt = [path for each in training for path in each.caption_dbs]
    texts = caption_texts(learnt[0], databases.vocab_size)
    videos = databases.videos(entry, texts)
    vocabulary = Vocabulary.of(texts, run.options.toker)
    target = entry.given("gt_anno")
    return CaptionSplit(target, videos.source, vocabulary, run, need_references=True)


def validate_listed(
    model: HeroForMultiTask, sets: Sequence[ListedSet], step: int
) -> dict[str, float | str]:
    """Validate all sets; log one table.

    Returns:
        Metrics as ``{label}/{name}``; on rank 0 also the scores, and their mean.
    """
    found = {each.label: each.validate(model.parts[each.entry.kind], step) for each in sets}
    scored = {each.label: each.score(found[each.label]) for each in sets}
    scores = {label: score for label, score in scored.items() if score is not None}
    metrics = {
        f"{label}/{name}": value
        for label, values in found.items()
        for name, value in values.items()
    }
    if not scores:
        return metrics
    total = meta_average(scores)
    LOGGER.info("validation after step %d\n%s", step, format_table(sets, found, scores, total))
    return {META_AVERAGE: total, **metrics}


def format_table(
    sets: Sequence[ListedSet],
    found: Mapping[str, Metrics],
    scores: Mapping[str, float],
    total: float,
) -> str:
    """A line per set: its losses, what it is scored by, and its score."""
    losses = dict.fromkeys(n for each in found.values() for n in each if n.startswith("loss/"))
    names = sorted(losses, key="loss/total".__eq__)
    rows = [
        [
            each.label,
            each.entry.split,
            *(found[each.label].get(name) for name in names),
            each.entry.value_task.metric,
            scores.get(each.label),
        ]
        for each in sets
    ]
    rows.append([META_AVERAGE, "", *[None] * len(names), "mean", total])
    headers = ["data set", "split", *names, "metric", "score"]
    digits = ("", "", *[".4f"] * len(names), "", ".2f")
    return tabulate(rows, headers=headers, floatfmt=digits)
