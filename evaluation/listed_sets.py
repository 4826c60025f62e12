"""Validation of several data sets: losses and scores of each in one table, and Meta-Ave."""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
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
    """A data set to validate on."""

    label: str  # prefix of its metrics
    entry: DataSet  # of the list
    validate: Callable[[Any, int], Metrics]  # of a model of its task, and a step

    def score(self, metrics: Metrics) -> float | None:
        """Return the leaderboard's score; None without ground truth."""
        metric = self.entry.value_task.metric
        if metric == AVERAGE_RECALL:
            ranking = "VCMR" if self.entry.kind is Kind.MOMENTS else "VR"
            metric = f"{ranking}/{metric}"
        return float(metrics[metric]) if metric in metrics else None


def open_validation(run: Run[ValueOptions], databases: Databases) -> list[ListedSet]:
    """Open the sets to validate on; UserError if a database is missing or damaged."""
    entries = run.options.val_datasets
    names = labels(entries)
    return [
        ListedSet(names[entry.name], entry, _open(run, databases, entry, names[entry.name]))
        for entry in entries
    ]


def _open(
    run: Run[ValueOptions], databases: Databases, entry: DataSet, label: str
) -> Callable[[Any, int], Metrics]:
    """Return the function that validates an entry."""
    options = run.options.of(entry)
    own: Run[SetOptions] = replace(cast("Run[Any]", run), options=options, folder=copy(run.folder))
    if len(run.options.val_datasets) > 1:
        own.folder.results = run.folder.results / label
    weights = set_weights(entry, options)
    if entry.kind is Kind.CAPTIONS:
        clips = _open_clips(own, databases, entry)

        def evaluate(model: Any, step: int) -> Metrics:
            name = f"results_{split_label(entry.split, step)}_all.jsonl"
            return clips.evaluate(model, own.folder.results / name)

        return evaluate
    if entry.kind in (Kind.QUESTIONS, Kind.STATEMENTS):
        judged = open_judged(databases, entry, training=False)
        return AnswerSplit(entry.split, judged, weights, own).validate
    of_moments = entry.kind is Kind.MOMENTS
    settings = (SearchSettings.for_moments if of_moments else SearchSettings.for_videos)(options)
    queries = databases.texts(entry.given("query_txt_db"))
    videos = databases.videos(entry, queries)
    split = RetrievalSplit(entry.split, queries, videos, own, settings)
    return lambda model, step: split.validate(model, weights, step)


def _open_clips(run: Run[SetOptions], databases: Databases, entry: DataSet) -> CaptionSplit:
    training = (path for each in databases.options.train_datasets for path in each.caption_dbs)
    texts = caption_texts(next(training), databases.vocab_size)
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
    by_set = {each.label: each.validate(model.parts[each.entry.kind], step) for each in sets}
    scores = {
        each.label: score for each in sets if (score := each.score(by_set[each.label])) is not None
    }
    metrics = {
        f"{label}/{name}": value for label, own in by_set.items() for name, value in own.items()
    }
    if not scores:
        return metrics
    total = meta_average(scores)
    LOGGER.info("validation after step %d\n%s", step, format_table(sets, by_set, scores, total))
    return {META_AVERAGE: total, **metrics}


def format_table(
    sets: Sequence[ListedSet],
    by_set: Mapping[str, Metrics],
    scores: Mapping[str, float],
    total: float,
) -> str:
    """Return a table with a line per set: its losses, its metric, and its score."""
    losses = dict.fromkeys(n for each in by_set.values() for n in each if n.startswith("loss/"))
    names = sorted(losses, key="loss/total".__eq__)
    rows = [
        [
            each.label,
            each.entry.split,
            *(by_set[each.label].get(name) for name in names),
            each.entry.value_task.metric,
            scores.get(each.label),
        ]
        for each in sets
    ]
    rows.append([META_AVERAGE, "", *[None] * len(names), "mean", total])
    headers = ["data set", "split", *names, "metric", "score"]
    digits = ("", "", *[".4f"] * len(names), "", ".2f")
    return tabulate(rows, headers=headers, floatfmt=digits)
