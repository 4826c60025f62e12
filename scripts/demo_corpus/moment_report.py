"""What a moment-retrieval run of the demo found: a table beside chance, and a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no display needed

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from tabulate import tabulate

from evaluation.chance import MomentBounds, QueryTruth, chance_recall
from utils.files import atomic_write, read_json, read_jsonl
from utils.names import QUERY_NAMES, get_name

SHOWN = ("0.5-r1", "0.5-r5", "0.7-r1", "r1", "r5", "r10")
_TRUE, _PREDICTED, _SPOKEN = "tab:green", "tab:blue", "tab:gray"
_PREDICTIONS = 3  # per query in the picture


@dataclass(frozen=True)
class MomentRun:
    """Where the results of an evaluated run and what they are compared with lie.

    Attributes:
        results, metrics: files that the evaluation wrote.
        queries: raw annotation of the split.
        subtitles: raw subtitles.
        bounds: which moments the model could predict.
    """

    results: Path
    metrics: Path
    queries: Path
    subtitles: Path
    vid2nframe: Path
    bounds: MomentBounds


def truth_of(row: dict) -> QueryTruth:
    """The right answer of a raw query; DiDeMo's have several annotators."""
    spans = row["ts"] if isinstance(row["ts"][0], list) else [row["ts"]]
    return QueryTruth(get_name(row, *QUERY_NAMES.videos), spans)


def recall_table(run: MomentRun) -> str:
    """Recall of the run beside that of a random ranking."""
    frames = read_json(run.vid2nframe)
    pool = read_json(run.results)["video2idx"]
    chance = chance_recall(
        (truth_of(row) for _, row in read_jsonl(run.queries)),
        {vid: frames[vid] for vid in pool},
        run.bounds,
    )
    metrics = read_json(run.metrics)
    rows = [
        (task, name, metrics[task][name], chance[task][name], _ratio(metrics, chance, task, name))
        for task in ("VCMR", "SVMR", "VR")
        for name in SHOWN
        if name in metrics[task]
    ]
    headers = ("task", "recall (%)", "this run", "chance", "ratio")
    return tabulate(rows, headers=headers, floatfmt=(None, None, ".1f", ".2f", None))


def _ratio(metrics: dict, chance: dict, task: str, name: str) -> str:
    return f"× {metrics[task][name] / chance[task][name]:.1f}"


def plot_moments(run: MomentRun, path: Path, how_many: int = 6) -> None:
    """Draw true and predicted moments of queries taken evenly from the split.

    For each, the time line of the true video: the true moment, the best predictions in that video
    (SVMR; the darker, the more probable), when somebody speaks, and the place of the video in the
    ranking of all videos (VR).
    """
    results = read_json(run.results)
    queries = [row for _, row in read_jsonl(run.queries)]
    chosen = range(0, len(queries), max(1, len(queries) // how_many))[:how_many]
    subtitles = {get_name(row, "vid_name"): row["sub"] for _, row in read_jsonl(run.subtitles)}
    figure, axes = plt.subplots(
        len(chosen), 1, figsize=(11, 1.5 * len(chosen)), squeeze=False, layout="constrained"
    )
    for axis, place in zip(axes[:, 0], chosen, strict=True):
        row = queries[place]
        vid = get_name(row, *QUERY_NAMES.videos)
        ranked = [line[0] for line in results["VR"][place]["predictions"]]
        index = results["video2idx"][vid]
        rank = ranked.index(index) + 1 if index in ranked else f"> {len(ranked)}"
        axis.set_title(
            f"“{row['desc']}” — {vid}, rank {rank} of {len(results['video2idx'])}",
            loc="left",
            fontsize=9,
        )
        predictions = results["SVMR"][place]["predictions"][:_PREDICTIONS]
        _draw_time_line(axis, row, predictions, subtitles.get(vid, ()))
    axes[-1, 0].set_xlabel("seconds")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    plt.close(figure)


def _draw_time_line(
    axis: Axes, row: dict, predictions: Sequence[Sequence[float]], subtitles: Sequence[dict]
) -> None:
    """Three bars above each other: true moment, predictions, subtitles."""
    for start, end in truth_of(row).spans:
        axis.barh(2, end - start, left=start, height=0.7, color=_TRUE)
    for rank, (_, start, end, score) in enumerate(predictions):
        axis.barh(
            1,
            end - start,
            left=start,
            height=0.7 - 0.15 * rank,
            color=_PREDICTED,
            alpha=max(0.15, min(1.0, score)),
            edgecolor="black",
            linewidth=1.0 if rank == 0 else 0.3,
        )
    axis.broken_barh(
        [(line["start"], line["end"] - line["start"]) for line in subtitles],
        (-0.2, 0.4),
        facecolor=_SPOKEN,
        edgecolor="white",
    )
    axis.set_yticks([2, 1, 0], labels=["true", "predicted", "subtitles"], fontsize=8)
    axis.set_xlim(0, row["duration"])
    axis.set_ylim(-0.5, 2.6)
