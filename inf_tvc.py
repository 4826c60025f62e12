#!/usr/bin/env python
"""Caption clips with a fine-tuned model: TVC.

python inf_tvc.py --model_dir /storage/tvc_default --checkpoint best \\
    --target_clip /txt/tvc_val_release.jsonl --output tvc_val_output.jsonl
"""

from pathlib import Path

from config.config import TvcInferenceOptions, parse_options
from data.sources import open_videos
from data.stores.lmdb_io import TextDb
from data.video import longest_video
from data.vocabulary import Vocabulary
from engine.build import build_for_evaluation
from engine.run import on_main, start_evaluation
from evaluation.caption_split import CaptionSplit, show_metrics
from model.tvc import HeroForTvc
from utils.errors import run_main
from utils.files import check_output, write_json


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Write the captions; returns their metrics where the target has references."""
    options = parse_options(TvcInferenceOptions, argv)
    run = start_evaluation(options)
    metrics_file = Path(options.output).parent / f"metrics_{run.checkpoint.label}.json"
    on_main(run.comm, lambda: check_output(options.output, metrics_file))
    subtitles = TextDb(options.sub_txt_db, run.vocab_size)
    videos = open_videos(options, subtitles)
    run.warn_of_other_tokenizer(subtitles)
    vocabulary = Vocabulary.of(subtitles, options.toker)
    split = CaptionSplit(options.target_clip, videos.source, vocabulary, run)
    model = build_for_evaluation(
        HeroForTvc, run, videos.features.width, longest_video(videos.features)
    )
    metrics = split.evaluate(model, options.output)
    if metrics:
        print(show_metrics(metrics))
        write_json(metrics_file, split.clips.coverage.mark() | metrics, indent=2)
    return metrics


if __name__ == "__main__":
    run_main(main)
