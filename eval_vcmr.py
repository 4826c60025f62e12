#!/usr/bin/env python
"""Search a corpus for moments with a fine-tuned model: TVR, How2R, DiDeMo.

python eval_vcmr.py --query_txt_db /txt/tvr_val.db/ --split val --vfeat_db /video/tv/ \\
    --sub_txt_db /txt/tv_subtitles.db/ --output_dir /storage/tvr_default/ --checkpoint 4800
"""

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


def main(argv: list[str] | None = None) -> dict[str, float | str]:
    """Write the results file; returns its metrics where the split has ground truth."""
    options = parse_options(VcmrEvalOptions, argv)
    return evaluate_retrieval(options, HeroForVcmr, SearchSettings.for_moments(options))


def evaluate_retrieval(
    options: CorpusEvalOptions,
    model_class: type[MomentRetrievalModel],
    settings: SearchSettings,
) -> dict[str, float | str]:
    """Evaluate any task that finds videos for queries.

    Args:
        options: of the task.
        model_class: the task's model.
        settings: what to list for a query.
    """
    run = start_evaluation(options)
    split, model = open_retrieval(run, model_class, settings)
    folder = run.folder.path / options.results_name
    return split.evaluate(model, run.evaluated.label, folder)


def open_retrieval(
    run: Run[CorpusEvalOptions], model_class: type[MomentRetrievalModel], settings: SearchSettings
) -> tuple[RetrievalSplit, MomentRetrievalModel]:
    """The split that a run's options name, and its model."""
    options = run.options
    queries = TextDb(options.query_txt_db, run.vocab_size)
    channel = Channel(options.channel) if options.channel else channel_of(options.task)
    videos = open_videos(options, queries, channel)
    run.warn_of_other_tokenizer(queries, videos.subtitles)
    split = RetrievalSplit(options.split, queries, videos, run, settings)
    model = build_for_evaluation(
        model_class, run, videos.features.width, longest_video(videos.features)
    )
    return split, model


if __name__ == "__main__":
    run_main(main)
