"""Index films, so that moments in them are found by sentences.

python index_videos.py --videos films --index index --run runs/tvr \
    --resnet_weights resnet152-394f9c45.pth --slowfast_weights SLOWFAST_8x8_R50.pyth

Finds the films below --videos and the subtitles next to them, extracts features, encodes them with
the model, and writes what search_videos.py reads to --index. The same command again adds what is
new, encodes again what has changed, removes what was deleted, and resumes after a kill or a full
disk. Films that cannot be used are listed in <index>/failed.json and do not stop the others.

The model is one of
  --run RUN [--checkpoint STEP|best]   a finished run of train_vcmr.py
  --checkpoint FOLDER                  what scripts/export_model.py made, or a model of the hub
  --clip MODEL                         an image–text model (CLIP, SigLIP) of the hub, or its folder
Features come from the films, or with --vfeat_db (and --sub_txt_db) from databases; --videos is then
optional, and only gives the paths of the films.

Exit code 0: some film could be used; 2: none.
"""

import argparse
import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import utils.runtime  # noqa: F401  before PyTorch

# isort: split
from tqdm import tqdm

from data.prepare.find_videos import FoundVideos, find_videos
from data.prepare.problems import FAILED_FILE, Problems
from data.prepare.work import positive, work_parser
from data.stores.lmdb_io import FeatureDb, TextDb
from data.video_pool import VIDEO_SUFFIXES
from engine.extractors import add_extractors, check_extractors, choose_device
from search.engine import MomentSearch, open_scorer
from search.film_databases import FilmDatabases
from search.film_folder import FilmFolder, build_networks
from search.indexing import Summary, require_width, update_index
from search.scorer import Scorer
from search.store import DATABASE, IndexWriter
from utils.errors import UserError, run_main
from utils.files import check_output, named_path


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the options.

    Raises:
        UserError: they contradict each other, or one is missing.
    """
    parser = work_parser(__doc__)
    add = parser.add_argument
    add("--videos", help="folder of the films, with subtitles next to them")
    add("--index", required=True, help="folder of the index")
    add("--run", help="folder of a finished run")
    add("--checkpoint", help="step of the run (default: best), or a model")
    add("--toker", help="tokenizer, where the run has none")
    add("--clip", metavar="MODEL", help="image–text model instead of HERO")
    add(
        "--interval",
        type=positive,
        help="seconds a frame, with --clip (default: 1.5; HERO's is that of its run)",
    )
    add("--language", help="of the subtitles: en for film.en.srt")
    add("--encoding", nargs="+", default=[], help="of subtitles that are not UTF-8: cp1252, …")
    add_extractors(parser)
    add("--vfeat_db", help="feature databases instead of extraction: video_db/mine")
    add("--vfeat_version", default="resnet_slowfast", help="kind of the features")
    add("--compressed_db", action="store_true", help="of the compressed variant")
    add("--sub_txt_db", help="subtitle database, with --vfeat_db")
    add(
        "--prune",
        action="store_true",
        help="remove deleted films also if they are more than half",
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


def find_films(options: argparse.Namespace) -> FoundVideos | None:
    """Return the films below ``--videos``; None without it.

    Raises:
        UserError: it is no folder, or holds no films and there is no index yet.
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
    """Yield the writer of the index, the model, the source of films, and the model's device.

    Raises:
        UserError: another model made the index, or another process writes to it.
    """
    device = choose_device(options.device, options.half, options.workers)
    scorer = open_scorer(
        options.run,
        options.checkpoint,
        options.clip,
        options.toker,
        str(device),
        options.interval,
    )
    problems = Problems(named_path(options.index) / FAILED_FILE)
    source: FilmDatabases | FilmFolder
    if options.vfeat_db:
        source = _open_databases(options, scorer, problems, found)
        extractors = source.extractors
    else:
        extractor, made_by = build_networks(options, scorer, device)
        extractors = {name: dataclasses.asdict(made) for name, made in made_by.items()}
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
        finally:  # also after an error
            problems.write()


def _open_databases(
    options: argparse.Namespace, scorer: Scorer, problems: Problems, found: FoundVideos | None
) -> FilmDatabases:
    features = FeatureDb(
        options.vfeat_db, options.vfeat_version, scorer.maker.interval, options.compressed_db
    )
    require_width(scorer, features.width)
    subtitles = TextDb(options.sub_txt_db) if options.sub_txt_db else None
    videos = found.videos if found else []
    paths = {video.vid: video.path.absolute() for video in videos}
    source = FilmDatabases(features, subtitles, problems, paths)
    if missing := source.without_subtitles:
        print(
            f"WARNING: {options.sub_txt_db} lacks {len(missing)} of {len(source.files)} films, "
            f"such as {missing[0]!r}: they are indexed without subtitles"
        )
    return source


def update(options: argparse.Namespace, found: FoundVideos | None) -> tuple[Summary, int]:
    """Bring the index up to date; return what was done, and how many films are in it."""
    with opened(options, found) as (writer, scorer, source, device):
        print(f"{options.index}: {len(source.files)} films found")
        summary = Summary()
        start = time.monotonic()
        with tqdm(total=len(source.files), unit="film", disable=None) as progress:
            for summary in update_index(writer, scorer, source, options.prune):
                progress.update(summary.added + summary.unchanged + summary.failed - progress.n)
        per_minute = 60 * summary.added / (time.monotonic() - start)
        engine = MomentSearch(writer.state(), scorer, device=device)
        engine.warm_up()  # keeps the scores of the unrelated sentences in the index
        films = len(engine.films)
        print(
            f"{options.index}: {summary.added} films added ({per_minute:.1f} a minute), "
            f"{summary.unchanged} unchanged, {summary.removed} removed, "
            f"{source.problems.failures} failed; {films} in the index"
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
