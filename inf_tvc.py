#!/usr/bin/env python
"""Caption clips with a fine-tuned model: TVC.

python inf_tvc.py --model_dir /storage/tvc_default --checkpoint best \\
    --target_clip /txt/tvc_val_release.jsonl --output tvc_val_output.jsonl
"""

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


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Write the captions; returns their metrics where the target has references."""
    return caption_clips(parse_options(TvcInferenceOptions, argv))


def caption_clips(options: TvcInferenceOptions) -> dict[str, float]:
    """Caption the clips of any data set."""
    run = start_evaluation(options)
    output = options.output_file(run.evaluated.label)
    on_main(run.comm, lambda: check_output(output, metrics_file(output, run)))
    split, model = open_clips(run)
    metrics = split.evaluate(model, output)
    return save_metrics(metrics, split, metrics_file(output, run))


def metrics_file(output: str | Path, run: Run[TvcInferenceOptions]) -> Path:
    """Return where the metrics of the captions in ``output`` go."""
    return Path(output).parent / f"metrics_{run.evaluated.label}.json"


def open_clips(run: Run[TvcInferenceOptions]) -> tuple[CaptionSplit, HeroForTvc]:
    """The clips that a run's options name, and the model to caption them."""
    options = run.options
    if options.sub_txt_db:
        texts = TextDb(options.sub_txt_db, run.vocab_size)
    elif options.cap_txt_db:
        texts = caption_texts(options.cap_txt_db, run.vocab_size)
    else:
        raise UserError("missing options: --cap_txt_db (without subtitles it tells the tokens)")
    videos = open_videos(options, texts, Channel(options.channel or Channel.VIDEO_SUB))
    run.warn_of_other_tokenizer(texts)
    vocabulary = Vocabulary.of(texts, options.toker)
    split = CaptionSplit(options.target_clip, videos.source, vocabulary, run)
    longest = longest_video(videos.features)
    return split, build_for_evaluation(HeroForTvc, run, videos.features.width, longest)


def save_metrics(metrics: dict[str, float], split: CaptionSplit, file: Path) -> dict[str, float]:
    """Show and write metrics, if there are any; returns them."""
    if metrics:
        print(show_metrics(metrics))
        write_json(file, split.clips.coverage.mark() | metrics, indent=2)
    return metrics


if __name__ == "__main__":
    run_main(main)
