"""Report of a question-answering run: its answers and the frames that they attend to."""

from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from config.evaluation import VideoQaEvalOptions
from data.batch import QuestionBatch
from data.loader import ItemKey
from data.moments import parse_seconds
from data.sources import open_videos
from data.stores.lmdb_io import TextDb
from data.video import longest_video
from data.videoQA import QuestionDataset
from engine.build import build_for_evaluation
from engine.run import start_evaluation
from model.query_encoder import segment_attention
from model.videoQA import HeroForVideoQA
from scripts.demo_corpus.moment_report import FOUND, SPOKEN, TRUE, draw_time_line, save_figure

_WRONG = "tab:red"


@dataclass
class QuestionView:
    """The model's output for a question with K answers about a video of T frames."""

    probabilities: list[float]  # K
    attention: list[list[float]]  # K × T, of each answer over the frames; 1 in sum
    first: list[float]  # T, probability that the moment of the answer begins there
    last: list[float]  # T, or ends there


@torch.no_grad()
def view_questions(model: HeroForVideoQA, batch: QuestionBatch) -> list[QuestionView]:
    """Return the model's answers to every question, and its attention."""
    candidates, videos = batch.candidates, batch.candidates.video.layout
    frames = model.candidate_frames(candidates)
    scores = model.candidate_logits(frames, candidates)
    probabilities = scores.view(len(batch.ids), -1).softmax(dim=-1)
    attention = segment_attention(model.qa_pool(frames), candidates.runs)
    spans = model.span_logits(frames, batch.frame_runs)
    first, last = (segment_attention(spans[:, place, None], videos) for place in (0, 1))
    columns = (attention.view(*probabilities.shape, -1), first, last)
    return [
        QuestionView(
            probabilities[number].tolist(),
            *(column[number, ..., :length].tolist() for column in columns),
        )
        for number, length in enumerate(videos.lengths.tolist())
    ]


def plot_answers(options: VideoQaEvalOptions, path: Path, how_many: int = 5) -> None:
    """Draw questions taken evenly from the split.

    For each, the answers with their probabilities, and the time line of the video: the true and
    the predicted moment of the answer, the attention of the chosen answer, and the subtitles.
    """
    run = start_evaluation(options)
    texts = TextDb(options.query_txt_db)
    videos = open_videos(options, texts)
    data = QuestionDataset(texts, videos.source)
    longest = longest_video(videos.features)
    model = build_for_evaluation(HeroForVideoQA, run, videos.features.width, longest)
    chosen = range(0, len(data), max(1, len(data) // how_many))[:how_many]
    batch = data.collate([data[ItemKey(place)] for place in chosen]).to(run.device)
    subtitles = TextDb(options.sub_txt_db)
    figure, axes = plt.subplots(
        *(len(chosen), 2),
        figsize=(15, 2.1 * len(chosen) + 0.7),
        squeeze=False,
        layout="constrained",
        width_ratios=(1, 2.2),
    )
    for (left, right), id_, view in zip(axes, batch.ids, view_questions(model, batch), strict=True):
        record, vid = texts[id_], data.video_of[id_]
        left.set_title(f"“{record['q']}” — {vid}", loc="left", fontsize=9)
        _draw_answers(left, record, view)
        duration = len(view.first) * options.vfeat_interval
        moment = parse_seconds(record.get("ts"))
        spoken = subtitles[vid]["sub"] if vid in subtitles else ()
        draw_time_line(right, duration, [moment] if moment else [], spoken)
        _draw_attention(right, view, options.vfeat_interval)
    axes[-1, 1].set_xlabel("seconds")
    _explain(figure)
    save_figure(figure, path)


def _draw_answers(axis: Axes, record: dict, view: QuestionView) -> None:
    """Draw the answers below each other, each with a bar as long as it is probable."""
    for number, probability in enumerate(view.probabilities):
        best = probability == max(view.probabilities)
        color = TRUE if record.get("target") == number else _WRONG if best else SPOKEN
        axis.barh(-number, probability, height=0.85, alpha=0.5, color=color)
        text = f"{probability:4.0%}  {record[f'a{number}']}"
        axis.text(0.01, -number, text, fontsize=8, va="center", weight="bold" if best else None)
    axis.set_xlim(0, 1)
    axis.set_axis_off()


def _draw_attention(axis: Axes, view: QuestionView, interval: float) -> None:
    """Draw a cell for each frame, darker with more attention, and the most probable moment."""
    best = max(range(len(view.probabilities)), key=view.probabilities.__getitem__)
    attention = view.attention[best]
    for frame, weight in enumerate(attention):
        left, alpha = frame * interval, weight / max(attention)
        axis.barh(1.0, interval, left=left, height=0.6, color=FOUND, linewidth=0, alpha=alpha)
    begin = max(range(len(view.first)), key=view.first.__getitem__) * interval
    end = (max(range(len(view.last)), key=view.last.__getitem__) + 1) * interval
    axis.plot([begin, begin, end, end], [1.35, 1.5, 1.5, 1.35], color="black", linewidth=1.2)
    axis.set_yticks([2, 1.1, 0.2], labels=["true", "looks at", "spoken"], fontsize=8)


def _explain(figure: Figure) -> None:
    """Draw the legend above all."""
    handles = [
        Patch(color=TRUE, label="right answer; its moment"),
        Patch(color=_WRONG, label="chosen, but wrong"),
        Patch(color=FOUND, label="frames the chosen answer (bold) attends to: dark = more"),
        plt.Line2D([], [], color="black", label="predicted moment"),
        Patch(color=SPOKEN, label="speech, with its words below; other answers"),
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=5, fontsize=8)
