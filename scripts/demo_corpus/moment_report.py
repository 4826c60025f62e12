"""Report of a moment-retrieval run: a table of recalls and chance, and a picture."""

import html
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no display needed

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from tabulate import tabulate

from evaluation.chance import MomentBounds, chance_recall
from evaluation.retrieval_metrics import TASKS, annotated_spans
from utils.files import atomic_write, read_json, read_jsonl
from utils.names import QUERY_NAMES, get_name

SHOWN = ("0.5-r1", "0.5-r5", "0.7-r1", "r1", "r5", "r10")
TRUE, FOUND, SPOKEN = "tab:green", "tab:blue", "tab:gray"
_PREDICTIONS = 3  # per query in the picture
_FAINTEST = 0.15
_LETTERS_PER_LINE = 200  # of the words below the time line


@dataclass(frozen=True)
class MomentRun:
    """Files of an evaluated run."""

    results: Path
    metrics: Path
    queries: Path  # annotation of the split
    subtitles: Path  # raw
    vid2nframe: Path
    bounds: MomentBounds  # of the model's predictions


def recall_table(run: MomentRun) -> str:
    """Return a table of the run's recalls and those of a random ranking."""
    frames = read_json(run.vid2nframe)
    pool = {vid: frames[vid] for vid in read_json(run.results)["video2idx"]}
    chance = chance_recall((row for _, row in read_jsonl(run.queries)), pool, run.bounds)
    metrics = read_json(run.metrics)
    rows = []
    for task in TASKS:
        for name in (name for name in SHOWN if name in metrics[task]):
            recall, by_chance = metrics[task][name], chance[task][name]
            rows.append((task, name, recall, by_chance, f"× {recall / by_chance:.1f}"))
    headers = ("task", "recall (%)", "this run", "chance", "ratio")
    return tabulate(rows, headers=headers, floatfmt=(None, None, ".1f", ".2f", None))


def plot_moments(run: MomentRun, path: Path, how_many: int = 6) -> None:
    """Draw true and predicted moments of queries taken evenly from the split.

    For each, the time line of the true video: the true moment, the best predictions in that video
    (SVMR; dark = probable), the subtitles, and the rank of the video among all videos (VR).
    """
    results = read_json(run.results)
    queries = [row for _, row in read_jsonl(run.queries)]
    chosen = range(0, len(queries), max(1, len(queries) // how_many))[:how_many]
    subtitles = {get_name(row, "vid_name"): row["sub"] for _, row in read_jsonl(run.subtitles)}
    figure, axes = plt.subplots(
        len(chosen), 1, figsize=(13, 1.9 * len(chosen) + 0.7), squeeze=False, layout="constrained"
    )
    for axis, place in zip(axes[:, 0], chosen, strict=True):
        row = queries[place]
        vid = get_name(row, *QUERY_NAMES.videos)
        ranked = [line[0] for line in results["VR"][place]["predictions"]]
        index = results["video2idx"][vid]
        rank = ranked.index(index) + 1 if index in ranked else f"> {len(ranked)}"
        axis.set_title(f"“{row['desc']}” — {vid}, rank {rank}", loc="left", fontsize=9)
        predictions = results["SVMR"][place]["predictions"][:_PREDICTIONS]
        draw_time_line(axis, row["duration"], annotated_spans(row["ts"]), subtitles.get(vid, ()))
        _draw_predictions(axis, predictions)
    axes[-1, 0].set_xlabel("seconds")
    _explain(figure, len(results["video2idx"]))
    save_figure(figure, path)


def draw_time_line(
    axis: Axes, duration: float, spans: Sequence[Sequence[float]], subtitles: Sequence[dict]
) -> None:
    """Draw true moments above and subtitles below, over time in seconds; y from 0.6 to 1.6 is left
    free."""
    for start, end in spans:
        axis.barh(2, end - start, left=start, height=0.5, color=TRUE)
    bars = [(line["start"], line["end"] - line["start"]) for line in subtitles]
    axis.broken_barh(bars, (0.1, 0.25), facecolor=SPOKEN, edgecolor="white")
    for line in subtitles:
        letters = max(4, int(_LETTERS_PER_LINE * (line["end"] - line["start"]) / duration))
        text = textwrap.shorten(html.unescape(line["text"]), 3 * letters, placeholder="…")
        lines = textwrap.fill(text, letters, break_long_words=False)
        axis.text(line["start"], 0.05, lines, fontsize=6, va="top", clip_on=True)
    axis.set_yticks([2, 1.1, 0.2], labels=["true", "found", "spoken"], fontsize=8)
    axis.set_xlim(0, duration)
    axis.set_ylim(-1.1, 2.4)


def _draw_predictions(axis: Axes, predictions: Sequence[Sequence[float]]) -> None:
    """Draw a bar for each prediction, the best on top, with its probability."""
    for rank, (_, start, end, score) in enumerate(predictions):
        y, alpha = 1.45 - 0.35 * rank, max(_FAINTEST, min(1.0, score))
        axis.barh(y, end - start, left=start, height=0.3, color=FOUND, alpha=alpha)
        axis.text(start, y, f" {score:.0%}", fontsize=6, va="center")


def _explain(figure: Figure, videos: int) -> None:
    """Draw the legend above all."""
    keys = [
        Patch(color=TRUE, label="true moment"),
        Patch(color=FOUND, label="found in the true video, the best on top; dark = probable"),
        Patch(color=SPOKEN, label="speech, with its words below"),
    ]
    title = f"rank: place of the true video among all {videos} that were searched; 1 = best"
    figure.legend(
        handles=keys, title=title, loc="outside upper left", ncols=3, fontsize=8, title_fontsize=8
    )


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically, and close it."""
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    plt.close(figure)
