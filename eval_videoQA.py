#!/usr/bin/env python
"""Answer the questions of a split with a fine-tuned model: TVQA, How2QA; VLEP of VALUE.

python eval_videoQA.py --query_txt_db /txt/tvqa_val.db/ --split val --vfeat_db /video/tv/ \\
    --sub_txt_db /txt/tv_subtitles.db/ --output_dir /storage/tvqa_default/ --checkpoint 10000
"""

from dataclasses import dataclass

from config.config import VideoQaEvalOptions, parse_options
from config.evaluation import AnswerEvalOptions
from config.groups import Channel
from data.candidates import CandidateDataset
from data.sources import open_videos
from data.stores.lmdb_io import TextDb
from data.video import longest_video
from data.videoQA import question_dataset
from engine.build import build_for_evaluation
from engine.run import Run, start_evaluation
from evaluation.answer_split import AnswerSplit
from model.candidates import CandidateModel
from model.videoQA import MODELS
from utils.errors import run_main


@dataclass(frozen=True)
class Judging:
    """How a task's texts are judged by a video: its items, its model, the loss to report."""

    dataset_class: type[CandidateDataset]
    model_class: type[CandidateModel]
    loss: str


def questions(options: VideoQaEvalOptions) -> Judging:
    """Return how the questions of a task are answered."""
    return Judging(question_dataset(options.task), MODELS[options.task], "qa")


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Write the results file; returns its metrics where the split has ground truth."""
    options = parse_options(VideoQaEvalOptions, argv)
    return evaluate_answers(options, questions(options))


def evaluate_answers(options: AnswerEvalOptions, judging: Judging) -> dict[str, float]:
    """Evaluate any task that judges texts by a video."""
    run = start_evaluation(options)
    split, model = open_answers(run, judging)
    folder = run.folder.path / options.results_name
    return split.evaluate(model, run.evaluated.label, folder, options.save_logits)


def open_answers(
    run: Run[AnswerEvalOptions], judging: Judging
) -> tuple[AnswerSplit, CandidateModel]:
    """The split that a run's options name, and its model."""
    options = run.options
    texts = TextDb(options.query_txt_db, run.vocab_size)
    videos = open_videos(options, texts, Channel(options.channel or Channel.VIDEO_SUB))
    run.warn_of_other_tokenizer(texts, videos.subtitles)
    data = judging.dataset_class(texts, videos.source)
    split = AnswerSplit(options.split, data, {judging.loss: 1.0}, run)
    longest = longest_video(videos.features)
    model = build_for_evaluation(judging.model_class, run, videos.features.width, longest)
    return split, model


if __name__ == "__main__":
    run_main(main)
