"""Search the videos of databases for the moments that sentences describe, once.

python scripts/search_videos.py --run_dir runs/tvr --checkpoint 4800 --vfeat_db video_db/mine \
    --sub_txt_db txt_db/mine_subtitles.db --query "A dog jumps into the water."

Prints the best moments of all videos of the databases for each sentence: video, start and end in
seconds, score. Options of the run (number of frames, length of moments, …) hold unless they are
given. The databases are encoded again each time: index_videos.py keeps an index of them, which
search_videos.py in the folder above answers from in a moment.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from config.config import SearchOptions, parse_options
from data.bpe_tokenizer import BpeTokenizer
from data.loader import evaluation_batches
from data.prepare.extraction import read_feature_meta
from data.run_features import channel_of
from data.sources import VideoData, open_videos
from data.stores.lmdb_io import TextDb
from data.tokenize import FINGERPRINT, load_tokenizer, tokenizer_meta
from data.vcmr import CorpusVideos
from data.video import collate_videos, longest_video
from data.vocabulary import Vocabulary
from engine.build import build_for_evaluation
from engine.run import Run, start_evaluation
from evaluation.corpus import not_finite
from model.vcmr import HeroForVcmr
from search.engine import MomentSearch
from search.hero_scorer import HeroScorer, toker_of
from search.queries import searchable_videos
from search.store import IndexArrays, NewFilm
from utils.errors import UserError, run_main
from utils.files import check_output, write_json
from utils.logger import LOGGER

Moment = dict[str, str | float]  # video, start, end (seconds), score


def open_tokenizer(run: Run[SearchOptions]) -> BpeTokenizer:
    """The tokenizer of the subtitles; without subtitles, the one that is named, or the run's.

    Raises:
        UserError: none is known, or it is another than the subtitle database's; or that database
            was made for another interval, or by another tokenizer, than what the run read.
    """
    options = run.options
    if options.sub_txt_db is None:
        return load_tokenizer(toker_of(run))
    subtitles = TextDb(options.sub_txt_db, run.vocab_size)
    require_as_trained(subtitles, run)
    return Vocabulary.of(subtitles, options.toker).tokenizer


@dataclass(frozen=True)
class _Tokens:
    """What a query database would say of its tokens."""

    meta: dict[str, Any]
    vocab_size: int


def require_as_trained(subtitles: TextDb, run: Run) -> None:
    """Refuse subtitles that the run's model cannot read: what it answered would mean nothing.

    Raises:
        UserError: they are for another interval, or of another tokenizer.
    """
    interval = run.options.vfeat_interval
    told = subtitles.meta.get("frame_length", interval)
    if told != interval:
        raise UserError(
            f"{subtitles.path} was made for {told:g} seconds a frame, the run reads {interval:g}: "
            "make it again with the run's --frame_length"
        )
    run.require_tokenizer(str(subtitles.path), subtitles.meta)


def warn(videos: VideoData, vids: list[str]) -> None:
    """Say what the search will not see, or what makes its answers worthless."""
    longest = videos.features.max_clip_len
    if longest >= 0:
        longer = [vid for vid in vids if videos.features.id2nframe.get(vid, 0) > longest]
        if longer:
            LOGGER.warning(
                "%d videos, such as %s, are searched up to %g seconds only (--max_clip_len %d)",
                *(len(longer), longer[0], longest * videos.features.interval, longest),
            )
    for name, made_by in (read_feature_meta(videos.features.path).extraction or {}).items():
        if made_by.get("weights") is None:
            LOGGER.warning(
                "the %s features come from an untrained network: they mean nothing", name
            )


def make_index(
    run: Run[SearchOptions], scorer: HeroScorer, videos: VideoData, vids: list[str]
) -> IndexArrays:
    """The videos of the databases as an index in memory, in full precision.

    Raises:
        UserError: a video is encoded as values that are not finite.
    """
    batches = evaluation_batches(
        CorpusVideos(vids, videos.source),
        collate_videos,
        run.options.vcmr_eval_video_batch_size,
        run,
        "videos",
    )
    found: dict[str, np.ndarray] = {}
    for batch in batches:
        frames = scorer.encode_batch(batch)
        if not all(each.isfinite().all() for each in frames):
            raise not_finite(scorer.model, batch.vids, frames)
        found |= zip(batch.vids, (each.cpu().numpy() for each in frames))
    encoded = {
        vid: frames for part in run.comm.all_gather_object(found) for vid, frames in part.items()
    }
    interval = run.options.vfeat_interval
    films = [
        NewFilm(vid, len(encoded[vid]) * interval, [(0, encoded[vid].astype(np.float16))])
        for vid in vids
    ]
    index = IndexArrays(scorer.maker, films)
    index.frames = np.concatenate([encoded[vid] for vid in vids])
    return index


def search(
    run: Run[SearchOptions],
    tokenizer: BpeTokenizer,
    fingerprint: str,
    videos: VideoData,
    vids: list[str],
) -> dict[str, list[Moment]]:
    """Each sentence's moments, best first."""
    options = run.options
    model = build_for_evaluation(
        HeroForVcmr, run, videos.features.width, longest_video(videos.features)
    )
    scorer = HeroScorer(run, model, tokenizer, fingerprint)
    engine = MomentSearch(
        make_index(run, scorer, videos, vids),
        scorer,
        nms_thd=options.nms_thd,
        percentile=0,
        device=str(run.device),
    )
    found = zip(options.query, engine.search(options.query, options.top), strict=True)
    return {
        sentence: [
            {"video": m.name, "start": m.start, "end": m.end, "score": m.score} for m in moments
        ]
        for sentence, moments in found
    }


def main(argv: list[str] | None = None) -> dict[str, list[Moment]]:
    """Print, and return, the moments of each sentence."""
    options = parse_options(SearchOptions, argv)
    if options.output is not None:
        check_output(options.output)
    run = start_evaluation(options)
    tokenizer = open_tokenizer(run)
    named = _Tokens(tokenizer_meta(tokenizer), run.vocab_size)
    run.require_tokenizer(tokenizer.name_or_path, named.meta)
    videos = open_videos(options, named, channel_of(options.task))
    vids = searchable_videos(videos)
    warn(videos, vids)
    moments = search(run, tokenizer, named.meta[FINGERPRINT], videos, vids)
    for sentence, listed in moments.items():
        print(f"\n{sentence}")
        if listed:
            print(tabulate(listed, headers="keys", floatfmt=("", ".1f", ".1f", ".4g")))
        else:
            print(f"no video has the {options.min_pred_l + 1} frames of the shortest moment")
    if options.output is not None:
        write_json(options.output, moments, indent=2)
    return moments


if __name__ == "__main__":
    run_main(main)
