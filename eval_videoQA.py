#!/usr/bin/env python
"""Answer the questions of a split with a fine-tuned model: TVQA, How2QA.

python eval_videoQA.py --query_txt_db /txt/tvqa_val.db/ --split val --vfeat_db /video/tv/ \\
    --sub_txt_db /txt/tv_subtitles.db/ --output_dir /storage/tvqa_default/ --checkpoint 10000
"""

from config.config import VideoQaEvalOptions, parse_options
from config.evaluation import AnswerEvalOptions
from data.candidates import CandidateDataset
from data.sources import open_videos
from data.stores.lmdb_io import TextDb
from data.video import longest_video
from data.videoQA import QuestionDataset
from engine.build import build_for_evaluation
from engine.run import start_evaluation
from evaluation.answer_split import AnswerSplit
from model.candidates import CandidateModel
from model.videoQA import HeroForVideoQA
from utils.errors import run_main


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Write the results file; returns its metrics where the split has ground truth."""
    options = parse_options(VideoQaEvalOptions, argv)
    return evaluate_answers(options, QuestionDataset, HeroForVideoQA, "qa")


def evaluate_answers(
    options: AnswerEvalOptions,
    dataset_class: type[CandidateDataset],
    model_class: type[CandidateModel],
    loss: str,
) -> dict[str, float]:
    """Evaluate any task that judges texts by a video.

    Args:
        options: of the task.
        dataset_class: the task's items.
        model_class: the task's model.
        loss: the loss to report.
    """
    run = start_evaluation(options)
    texts = TextDb(options.query_txt_db, run.vocab_size)
    videos = open_videos(options, texts)
    run.warn_of_other_tokenizer(texts, videos.subtitles)
    split = AnswerSplit(options.split, dataset_class(texts, videos.source), {loss: 1.0}, run)
    model = build_for_evaluation(
        model_class, run, videos.features.width, longest_video(videos.features)
    )
    return split.evaluate(model, run.checkpoint.label, save_logits=options.save_logits)


if __name__ == "__main__":
    run_main(main)
