#!/usr/bin/env python
"""Caption clips with a fine-tuned model: TVC.

python inf_tvc.py --model_dir /storage/tvc_default --checkpoint best \\
    --target_clip /txt/tvc_val_release.jsonl --output tvc_val_output.jsonl
"""

from functools import partial
from pathlib import Path

from config.config import TvcInferenceOptions, parse_options
from config.groups import Channel
from data.sources import open_videos
from data.stores.lmdb_io import TextDb
from data.tvc import caption_texts
from data.video import longest_video
from data.vocabulary import Vocabulary
from engine.build import build_for_evaluation
from engine.run import Run, on_main, start_evaluation
from evaluation.caption_split import CaptionSplit, show_metrics
from model.tvc import HeroForTvc
from utils.errors import UserError, run_main
from utils.files import check_output, write_json


def caption(
    options_class: type[TvcInferenceOptions], argv: list[str] | None = None
) -> dict[str, float]:
    """Write the captions of all clips; return their metrics where the clips have references."""
    run = start_evaluation(parse_options(options_class, argv))
    output = run.options.output_file(run.evaluated.label)
    metrics = metrics_file(output, run)
    on_main(run.comm, lambda: check_output(output, metrics))
    split, model = open_clips(run)
    return save_metrics(split.evaluate(model, output), split, metrics)


def metrics_file(output: str | Path, run: Run[TvcInferenceOptions]) -> Path:
    """Return the path of the metrics of the captions in ``output``."""
    return Path(output).parent / f"metrics_{run.evaluated.label}.json"


def open_clips(run: Run[TvcInferenceOptions]) -> tuple[CaptionSplit, HeroForTvc]:
    """Return the clips that a run's options name, and the run's model."""
    options = run.options
    if options.sub_txt_db:
        texts = TextDb(options.sub_txt_db, run.vocab_size)
    elif options.cap_txt_db:
        texts = caption_texts(options.cap_txt_db, run.vocab_size)
    else:
        raise UserError("missing options: --cap_txt_db (without subtitles it gives the tokenizer)")
    videos = open_videos(options, texts, Channel(options.channel or Channel.VIDEO_SUB))
    run.warn_of_other_tokenizer(texts)
    vocabulary = Vocabulary.of(texts, options.toker)
    split = CaptionSplit(options.target_clip, videos.source, vocabulary, run)
    width, longest = videos.features.width, longest_video(videos.features)
    return split, build_for_evaluation(HeroForTvc, run, width, longest)


def save_metrics(metrics: dict[str, float], split: CaptionSplit, file: Path) -> dict[str, float]:
    """Print and write metrics, if there are any, and return them."""
    if metrics:
        print(show_metrics(metrics))
        write_json(file, split.clips.coverage.mark() | metrics, indent=2)
    return metrics


main = partial(caption, TvcInferenceOptions)

if __name__ == "__main__":
    run_main(main)
