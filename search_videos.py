#!/usr/bin/env python
"""Find the moments of films that sentences describe, in an index that index_videos.py made.

python search_videos.py --index INDEX --query "A dog jumps into the water." "Somebody laughs."

Prints the best moments of all films for each sentence: film, times, score, its share of those
listed, and the words spoken there. Moments that score no better than sentences unrelated to the
films are marked as doubtful. --json writes {sentence: [{"file", "start", "end",
"score", "text"}, …]}, times in seconds; --clips the moments as video files; --html one page with
thumbnails.
"""

import argparse
from pathlib import Path

import utils.runtime  # noqa: F401  before PyTorch

# isort: split
from data.prepare.work import script_parser
from search.answers import Moment, as_records, as_text, write_clips, write_page
from search.store import Index
from utils.errors import UserError, run_main
from utils.files import check_output, named_path, write_json
from utils.logger import LOGGER

TOP = 5


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = script_parser(__doc__)
    add = parser.add_argument
    add("--index", required=True, help="folder that index_videos.py made")
    add("--query", required=True, nargs="+", help="one sentence or more, each in quotes")
    add("--top", type=int, default=TOP, help="moments listed per sentence (default: %(default)s)")
    add("--json", help="file to write the moments to")
    add("--clips", help="folder to write the moments to, as video files")
    add("--html", help="page to write, with thumbnails")
    add("--nms_thd", type=float, default=0.5, help=_NMS)
    add("--doubt", type=float, default=90.0, help=_DOUBT)
    add("--run", help="the run whose model made the index, if it has moved")
    add("--checkpoint", help="its step, best, or an exported model (default: what made the index)")
    add("--toker", help="tokenizer (default: what made the index)")
    add("--device", default="cpu", help="where to compute, such as cuda (default: %(default)s)")
    options = parser.parse_args(argv)
    if options.top < 1:
        raise UserError(f"--top {options.top}: ask for one moment at least")
    if not 0 <= options.doubt <= 100:
        raise UserError(f"--doubt {options.doubt:g} is a percentile: from 0 to 100")
    if not (options.nms_thd == -1 or 0 <= options.nms_thd <= 1):
        raise UserError(f"--nms_thd {options.nms_thd:g}: from 0 to 1, or -1 to list all moments")
    return options


_NMS = (
    "highest overlap (temporal IoU) of two moments listed of a film; -1: any (default: %(default)s)"
)
_DOUBT = (
    "moments that score below this percentile of the scores of unrelated sentences are doubtful; "
    "0: none is (default: %(default)s)"
)


def check_outputs(options: argparse.Namespace) -> None:
    """Check, before the search, that its results can be written."""
    check_output(*(path for path in (options.json, options.html) if path is not None))
    if options.clips is not None:
        check_output(named_path(options.clips) / "clip.mp4")


def main(argv: list[str] | None = None) -> dict[str, list[Moment]]:
    """Print, write and return the moments of each sentence."""
    options = parse_arguments(argv)
    check_outputs(options)
    index = Index.open(options.index)
    if not index.segments:
        raise UserError(f"{options.index} holds no film yet; index_videos.py puts them in")
    from search.engine import MomentSearch, check_sentences  # with PyTorch, after the first checks

    check_sentences(options.query)
    engine = MomentSearch.open(
        index,
        run=options.run,
        checkpoint=options.checkpoint,
        toker=options.toker,
        device=options.device,
        nms_thd=options.nms_thd,
        percentile=options.doubt,
    )
    sentences = list(dict.fromkeys(options.query))
    answers = dict(zip(sentences, engine.search(sentences, options.top), strict=True))
    print("\n\n".join(as_text(sentence, moments) for sentence, moments in answers.items()))
    if engine.note:
        LOGGER.warning("%s", engine.note)
    if options.json is not None:
        write_json(options.json, as_records(answers), indent=2)
    if options.html is not None:
        write_page(answers, engine.thumbnail, Path(options.html))
    if options.clips is not None:
        write_clips(answers, Path(options.clips))
    return answers


if __name__ == "__main__":
    run_main(main)
