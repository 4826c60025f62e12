#!/usr/bin/env python
"""Answer the questions of a split with a fine-tuned model: TVQA, How2QA; VLEP of VALUE.

python eval_videoQA.py --query_txt_db /txt/tvqa_val.db/ --split val --vfeat_db /video/tv/ \\
    --sub_txt_db /txt/tv_subtitles.db/ --output_dir /storage/tvqa_default/ --checkpoint 10000
"""

from collections.abc import Callable
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
class AnswerTask:
    """A task that judges texts by a video; classes may depend on the options."""

    options_class: type[AnswerEvalOptions]
    dataset_class: Callable[[AnswerEvalOptions], type[CandidateDataset]]
    model_class: Callable[[AnswerEvalOptions], type[CandidateModel]]
    loss: str  # name of the loss to report

    def open(self, run: Run[AnswerEvalOptions]) -> tuple[AnswerSplit, CandidateModel]:
        """Return the split that a run's options name, and the run's model."""
        options = run.options
        texts = TextDb(options.query_txt_db, run.vocab_size)
        videos = open_videos(options, texts, Channel(options.channel or Channel.VIDEO_SUB))
        run.warn_of_other_tokenizer(texts, videos.subtitles)
        data = self.dataset_class(options)(texts, videos.source)
        split = AnswerSplit(options.split, data, {self.loss: 1.0}, run)
        width, longest = videos.features.width, longest_video(videos.features)
        return split, build_for_evaluation(self.model_class(options), run, width, longest)

    def evaluate(self, argv: list[str] | None = None) -> dict[str, float]:
        """Write the results file; return its metrics where the split has ground truth."""
        run = start_evaluation(parse_options(self.options_class, argv))
        split, model = self.open(run)
        folder = run.folder.path / run.options.results_name
        return split.evaluate(model, run.evaluated.label, folder, run.options.save_logits)


QUESTIONS = AnswerTask(
    VideoQaEvalOptions,
    lambda options: question_dataset(options.task),
    lambda options: MODELS[options.task],
    "qa",
)
main = QUESTIONS.evaluate

if __name__ == "__main__":
    run_main(main)
