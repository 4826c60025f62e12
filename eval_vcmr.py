#!/usr/bin/env python
"""Search a corpus for moments with a fine-tuned model: TVR, How2R, DiDeMo.

python eval_vcmr.py --query_txt_db /txt/tvr_val.db/ --split val --vfeat_db /video/tv/ \\
    --sub_txt_db /txt/tv_subtitles.db/ --output_dir /storage/tvr_default/ --checkpoint 4800
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from config.config import VcmrEvalOptions, parse_options
from config.evaluation import CorpusEvalOptions
from config.groups import Channel
from data.run_features import channel_of
from data.sources import open_videos
from data.stores.lmdb_io import TextDb
from data.video import longest_video
from engine.build import build_for_evaluation
from engine.run import Run, start_evaluation
from evaluation.ranking import SearchSettings
from evaluation.retrieval_split import RetrievalSplit
from model.vcmr import HeroForVcmr, MomentRetrievalModel
from utils.errors import run_main


@dataclass(frozen=True)
class RetrievalTask:
    """A task that retrieves videos, or moments in them, for queries."""

    options_class: type[CorpusEvalOptions]
    model_class: type[MomentRetrievalModel]
    settings: Callable[[Any], SearchSettings]  # of the options

    def open(self, run: Run[CorpusEvalOptions]) -> tuple[RetrievalSplit, MomentRetrievalModel]:
        """Return the split that a run's options name, and the run's model."""
        options = run.options
        queries = TextDb(options.query_txt_db, run.vocab_size)
        channel = Channel(options.channel) if options.channel else channel_of(options.task)
        videos = open_videos(options, queries, channel)
        run.warn_of_other_tokenizer(queries, videos.subtitles)
        split = RetrievalSplit(options.split, queries, videos, run, self.settings(options))
        width, longest = videos.features.width, longest_video(videos.features)
        return split, build_for_evaluation(self.model_class, run, width, longest)

    def evaluate(self, argv: list[str] | None = None) -> dict[str, float | str]:
        """Write the results file; return its metrics where the split has ground truth."""
        run = start_evaluation(parse_options(self.options_class, argv))
        split, model = self.open(run)
        folder = run.folder.path / run.options.results_name
        return split.evaluate(model, run.evaluated.label, folder)


MOMENTS = RetrievalTask(VcmrEvalOptions, HeroForVcmr, SearchSettings.for_moments)
main = MOMENTS.evaluate

if __name__ == "__main__":
    run_main(main)
