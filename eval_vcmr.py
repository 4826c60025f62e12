#!/usr/bin/env python
"""Search a corpus for moments with a fine-tuned model: TVR, How2R, DiDeMo.

python eval_vcmr.py --query_txt_db /txt/tvr_val.db/ --split val --vfeat_db /video/tv/ \\
    --sub_txt_db /txt/tv_subtitles.db/ --output_dir /storage/tvr_default/ --checkpoint 4800
"""

from config.config import VcmrEvalOptions, parse_options
from data.lmdb_io import TextDb
from data.retrieval_split import RetrievalSplit
from data.sources import is_video_only, open_videos
from model.build import build_for_evaluation
from model.vcmr import HeroForVcmr
from utils.errors import run_main
from utils.moment_ranking import SearchSettings
from utils.run import start_evaluation


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Write the results file; returns its metrics where the split has ground truth."""
    options = parse_options(VcmrEvalOptions, argv)
    run = start_evaluation(options, options.output_dir)
    queries = TextDb(options.query_txt_db)
    videos = open_videos(options, queries, is_video_only(options.task))
    model = build_for_evaluation(HeroForVcmr, run, videos.features.width, options.checkpoint)
    split = RetrievalSplit(options.split, queries, videos, run)
    return split.evaluate(model, SearchSettings.for_moments(options), options.checkpoint)


if __name__ == "__main__":
    run_main(main)
