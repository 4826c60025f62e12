"""Index films, so that moments in them are found by sentences.

python index_videos.py --videos films --index index --run runs/tvr \
    --resnet_weights resnet152-394f9c45.pth --slowfast_weights SLOWFAST_8x8_R50.pyth

Finds the films below --videos and the subtitles beside them, extracts features, encodes them with
the model, and keeps what search_videos.py reads in --index. Run again with the same command: what
is new or changed is done, what is gone goes, and what a kill or a full disk broke off goes on.
Films that cannot be used are listed in <index>/failed.json, and the others go on.

The model is one of
  --run RUN [--checkpoint STEP|best]   a finished run of train_vcmr.py
  --checkpoint FOLDER                  what scripts/export_model.py made, or a model of the hub
  --clip MODEL                         an image–text model (CLIP, SigLIP) of the hub, or its folder
Features come from the films, or with --vfeat_db (and --sub_txt_db) from databases; then --videos
only tells where the films lie.

Exit code 0: some film could be used; 2: none.
"""

import argparse
import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import utils.runtime  # noqa: F401  before PyTorch

# isort: split
from tqdm import tqdm

from data.prepare.find_videos import FoundVideos, find_videos
from data.prepare.problems import FAILED_FILE, Problems
from data.prepare.work import positive, work_parser
from data.stores.lmdb_io import FeatureDb, TextDb
from data.video_pool import VIDEO_SUFFIXES
from engine.extractors import add_extractors, build_extractors, check_extractors, choose_device
from search.engine import MomentSearch
from search.film_databases import FilmDatabases
from search.film_folder import FilmFolder
from search.indexing import Summary, require_width, update_index
from search.scorer import OwnFeatures, Scorer
from search.store import DATABASE, IndexWriter
from utils.errors import UserError, run_main
from utils.files import check_output, named_path

if TYPE_CHECKING:
    import torch


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line.

    Raises:
        UserError: options contradict each other, or one is missing.
    """
    parser = work_parser(__doc__)
    parser.add_argument("--videos", help="folder of the films, with subtitles beside them")
    parser.add_argument("--index", required=True, help="folder of the index")
    parser.add_argument("--run", help="folder of a finished run")
    parser.add_argument("--checkpoint", help="step of the run (default: best), or a model")
    parser.add_argument("--toker", help="tokenizer, where the run has none")
    parser.add_argument("--clip", metavar="MODEL", help="image–text model instead of HERO")
    parser.add_argument(
        "--interval",
        type=positive,
        help="seconds a frame, with --clip (default: 1.5; HERO's is that of its run)",
    )
    parser.add_argument("--language", help="of the subtitles: en for film.en.srt")
    parser.add_argument(
        "--encoding", nargs="+", default=[], help="of subtitles that are not UTF-8: cp1252, …"
    )
    add_extractors(parser)
    parser.add_argument("--vfeat_db", help="feature databases instead of extraction: video_db/mine")
    parser.add_argument("--vfeat_version", default="resnet_slowfast", help="kind of the features")
    parser.add_argument("--compressed_db", action="store_true", help="of the compressed variant")
    parser.add_argument("--sub_txt_db", help="subtitle database beside --vfeat_db")
    parser.add_argument(
        "--prune",
        action="store_true",
        help="take out films that are gone also if these are more than half",
    )
    options = parser.parse_args(argv)
    _check_options(options)
    return options


def _check_options(options: argparse.Namespace) -> None:
    if options.clip is None and options.run is None and options.checkpoint is None:
        raise UserError("name the model: --run RUN, --checkpoint FOLDER, or --clip MODEL")
    if options.clip and (options.run or options.checkpoint):
        raise UserError("--clip is a model of its own: leave out --run and --checkpoint")
    if options.interval and not options.clip:
        raise UserError("--interval goes with --clip: HERO's is that of its run")
    if options.videos is None and options.vfeat_db is None:
        raise UserError("--videos is missing: name the folder of the films")
    if options.sub_txt_db and not options.vfeat_db:
        raise UserError("--sub_txt_db goes with --vfeat_db")
    if options.vfeat_db and options.clip:
        raise UserError("--clip extracts its own features: leave out --vfeat_db")
    if not (options.vfeat_db or options.clip):
        check_extractors(options)


def open_scorer(options: argparse.Namespace, device: "torch.device") -> Scorer:
    """The model that is named.

    Raises:
        UserError: there is none, or it cannot be used.
    """
    if options.clip:
        from search.clip_scorer import ClipScorer

        return ClipScorer.open(options.clip, str(device), options.interval)
    from search.hero_scorer import HeroScorer

    return HeroScorer.open(options.run, options.checkpoint, options.toker, str(device))


def find_films(options: argparse.Namespace) -> FoundVideos | None:
    """The films below ``--videos``; None if that is not given.

    Raises:
        UserError: it is no folder, or there are no films and there is no index either.
    """
    if options.videos is None:
        return None
    if not Path(options.videos).is_dir():
        raise UserError(f"{options.videos} is no folder; --videos must hold the films")
    found = find_videos(options.videos)
    known = options.vfeat_db or (named_path(options.index) / DATABASE).is_file()
    if not (found.videos or found.unusable or known):
        raise UserError(f"{options.videos} holds no films ({', '.join(VIDEO_SUFFIXES)})")
    for note in found.notes():
        print(f"{options.videos}: {note}")
    return found


@contextmanager
def opened(
    options: argparse.Namespace, found: FoundVideos | None
) -> Iterator[tuple[IndexWriter, Scorer, FilmDatabases | FilmFolder, str]]:
    """Give the writer of the index, the model, the source of films, and the model's device.

    Raises:
        UserError: the index was made otherwise, or another process writes to it.
    """
    device = choose_device(options.device, options.half, options.workers)
    scorer = open_scorer(options, device)
    problems = Problems(named_path(options.index) / FAILED_FILE)
    source: FilmDatabases | FilmFolder
    if options.vfeat_db:
        source = _open_databases(options, scorer, problems, found)
        extractors = source.extractors
    else:
        extractor, made_by = (
            scorer.extraction(options.half)
            if isinstance(scorer, OwnFeatures)
            else build_extractors(options, scorer.maker.interval, device)
        )
        extractors = {name: dataclasses.asdict(made) for name, made in made_by.items()}
        widths = {name: made.width for name, made in made_by.items()}
        require_width(scorer, widths, sum(widths.values()))
    maker = dataclasses.replace(scorer.maker, extractors=extractors)
    with IndexWriter(options.index, maker) as writer:
        if not options.vfeat_db:
            assert found is not None  # --videos is given where --vfeat_db is not
            source = FilmFolder(
                found,
                writer.folder,
                extractor,
                made_by,
                problems,
                language=options.language,
                encodings=options.encoding,
                batch_size=options.batch_size,
                workers=options.workers,
            )
            for note in source.matches.notes():
                print(f"{options.videos}: {note}")
        try:
            yield writer, scorer, source, str(device)
        finally:  # also of work that is broken off
            problems.write()


def _open_databases(
    options: argparse.Namespace, scorer: Scorer, problems: Problems, found: FoundVideos | None
) -> FilmDatabases:
    features = FeatureDb(
        options.vfeat_db, options.vfeat_version, scorer.maker.interval, options.compressed_db
    )
    require_width(scorer, {}, features.width)
    subtitles = TextDb(options.sub_txt_db) if options.sub_txt_db else None
    videos = found.videos if found else []
    paths = {video.vid: video.path.absolute() for video in videos}
    source = FilmDatabases(features, subtitles, problems, paths)
    if source.silent:
        print(
            f"WARNING: {options.sub_txt_db} lacks {len(source.silent)} of {len(source.files)} "
            f"films, such as {source.silent[0]!r}: nothing is spoken in them"
        )
    return source


def update(options: argparse.Namespace, found: FoundVideos | None) -> tuple[Summary, int]:
    """Bring the index up to date; what was done, and how many films are in it."""
    with opened(options, found) as (writer, scorer, source, device):
        print(f"{options.index}: {len(source.files)} films are there")
        summary = Summary()
        start = time.monotonic()
        with tqdm(total=len(source.files), unit="film", disable=None) as progress:
            for summary in update_index(writer, scorer, source, options.prune):
                progress.update(summary.made + summary.same + summary.failed - progress.n)
        seconds = time.monotonic() - start
        engine = MomentSearch(writer.state(), scorer, device=device)
        engine.calibrate()  # so that the first search need not
        films = len(engine.films)
        print(
            f"{options.index}: {summary.made} films put in ({60 * summary.made / seconds:.1f} a "
            f"minute), {summary.same} as they were, {summary.gone} gone, "
            f"{source.problems.failures} failed; {films} are in it"
        )
        top = found.top if found and not options.vfeat_db else None
        if report := source.problems.report(top):
            print(report)
        return summary, films


def main(argv: list[str] | None = None) -> Summary:
    """Bring the index up to date."""
    options = parse_arguments(argv)
    check_output(named_path(options.index) / DATABASE)
    found = find_films(options)
    summary, films = update(options, found)
    if summary.failed and not films:
        raise UserError(
            f"no film of {options.vfeat_db or options.videos} can be used; see {FAILED_FILE}"
        )
    return summary


if __name__ == "__main__":
    run_main(main)
