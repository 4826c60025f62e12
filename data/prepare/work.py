"""Shared code of the preparation scripts: options, work in parallel, finished databases."""

import argparse
import gc
import itertools
import math
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from tqdm import tqdm

from data.annotations import Line, read_lines
from data.bpe_tokenizer import BpeTokenizer
from data.stores.build_folder import check_folder
from data.stores.lmdb_io import TextDb, pack_record
from data.stores.records import ID2NFRAME
from data.tokenize import DEFAULT_TOKENIZER, encode_texts, named_in_environment
from utils.errors import UserError
from utils.files import count_lines, modified, read_json
from utils.processes import follow_parent, what_it_read

CHUNK = 256  # lines that a worker takes at once
ALONE_BYTES = 8 << 20  # annotations that one process reads faster than workers start

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Parser(argparse.ArgumentParser):
    """Reports a mistake in one line, without the whole usage."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (--help says more)")


def script_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser that shows ``description`` verbatim."""
    formatter = argparse.RawDescriptionHelpFormatter
    return _Parser(description=description, formatter_class=formatter, allow_abbrev=False)


def work_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with ``--workers``, ``--nproc`` in the original."""
    parser = script_parser(description)
    parser.add_argument(
        "--workers",
        "--nproc",
        type=int,
        default=min(8, len(os.sched_getaffinity(0))),
        help="processes that share the work; 1: this one alone (default: %(default)s)",
    )
    return parser


def add_force(parser: argparse.ArgumentParser) -> None:
    """Add ``--force``."""
    parser.add_argument("--force", action="store_true", help="build an existing database again")


def add_toker(parser: argparse._ActionsContainer) -> None:
    """Add ``--toker``."""
    parser.add_argument(
        "--toker",
        default=named_in_environment() or DEFAULT_TOKENIZER,
        help=f"tokenizer: hub name or local folder (default: $HERO_TOKER or {DEFAULT_TOKENIZER})",
    )


def add_frame_length(parser: argparse.ArgumentParser) -> None:
    """Add ``--frame_length``."""
    parser.add_argument(
        "--frame_length",
        type=positive,
        default=1.5,
        help="seconds per frame, as given to the feature extractors (default: %(default)s)",
    )


def positive(text: str) -> float:
    """Return the value of an option that must be a number greater than 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def not_negative(text: str) -> int:
    """Return the value of an option that must be a whole number, 0 or more."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def text_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser that also has ``--annotation``, ``--output``, ``--toker``, ``--force``."""
    parser = work_parser(description)
    parser.add_argument("--annotation", required=True, help="JSON lines: see above")
    parser.add_argument("--output", required=True, help="folder of the new database")
    add_toker(parser)
    add_force(parser)
    return parser


def read_vid2nframe(paths: list[str]) -> dict[str, int]:
    """Return the frames per video, of all files together.

    Raises:
        UserError: a file is unreadable or holds something else, or two files disagree.
    """
    frames: dict[str, int] = {}
    for path in paths:
        table = read_json(path, ID2NFRAME)
        for vid in frames.keys() & table.keys():
            if frames[vid] != table[vid]:
                raise UserError(
                    f"{path} says {table[vid]} frames of video {vid!r}, a file before it "
                    f"{frames[vid]}: give files of one interval"
                )
        frames |= table
    return frames


def pack_line(line: Line, record: dict) -> bytes:
    """Return the record made of an annotation, as stored.

    Raises:
        UserError: it holds what no database can (names file and line).
    """
    try:
        return pack_record(record)
    except (UnicodeEncodeError, OverflowError) as error:
        raise line.error(error) from None


def encode_groups(tokenizer: BpeTokenizer, groups: list[list[str]]) -> list[list[list[int]]]:
    """Return the token ids of each text of each group; all are tokenised in one call."""
    encoded = iter(encode_texts(tokenizer, [text for group in groups for text in group]))
    return [[next(encoded) for _ in group] for group in groups]


def map_lines(
    work: Callable[[list[Line]], list[Result]], path: str, workers: int
) -> Iterator[Result]:
    """Apply ``work`` to the lines of an annotation file: see :func:`map_in_chunks`.

    A small file is processed by this process alone.

    Raises:
        UserError: the file cannot be read or is empty.
    """
    total, size = count_lines(path)
    return map_in_chunks(work, read_lines(path), workers if size > ALONE_BYTES else 1, total, CHUNK)


def map_in_chunks(
    work: Callable[[list[Item]], list[Result]],
    items: Iterable[Item],
    workers: int,
    total: int,
    chunk: int,
) -> Iterator[Result]:
    """Apply ``work`` to chunks of ``items``, in order, in worker processes, with a progress bar.

    A few chunks per worker are in progress at a time, so ``items`` may be larger than memory.

    Raises:
        UserError: raised by ``work``, or a worker was killed.
    """
    chunks = _in_chunks(items, chunk)
    alone = workers <= 1 or total <= chunk
    results = map(work, chunks) if alone else _map_in_processes(work, chunks, workers)
    with tqdm(total=total, disable=None) as progress, _no_cycles():
        for of_chunk in results:
            yield from of_chunk
            progress.update(len(of_chunk))


@contextmanager
def _no_cycles() -> Iterator[None]:
    """Disable the search for reference cycles: it takes a third of the time and finds none."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _in_chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    source = iter(items)
    while of_chunk := list(itertools.islice(source, size)):
        yield of_chunk


def _map_in_processes(
    work: Callable[[list], list], chunks: Iterator[list], workers: int
) -> Iterator[list]:
    # Forked workers share what is loaded already, above all the tokenizer.
    context = multiprocessing.get_context("fork")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads do not survive a fork
    with ProcessPoolExecutor(workers, context, _start_worker, (work,)) as pool:
        pending: deque = deque()
        pids: set[int] = set()
        try:
            for of_chunk in chunks:
                pending.append(pool.submit(_run_chunk, of_chunk))
                pids.update(p.pid for p in multiprocessing.active_children() if p.pid is not None)
                if len(pending) > 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool:
            read = sorted(filter(None, map(what_it_read, pids)))
            reason = f"while it read {' or '.join(read)}: damaged?" if read else "out of memory?"
            raise UserError(
                f"a worker process was killed ({reason}); run again with fewer --workers"
            ) from None
        finally:
            # Wait: its thread would close pipes that the ending interpreter still writes to.
            pool.shutdown(cancel_futures=True)


_work: Callable[[list], list]


def _start_worker(work: Callable[[list], list]) -> None:
    global _work
    _work = work
    gc.disable()
    follow_parent()


def _run_chunk(chunk: list) -> list:
    return _work(chunk)


def needs_build(
    options: argparse.Namespace,
    recipe: dict[str, Any],
    inputs: list[str],
    parts: tuple[str, ...] = (".",),
    sides: dict[str, Any] | None = None,
) -> bool:
    """Return whether ``options.output`` must be built; False if this very command made it.

    An unfinished or damaged database, and any with ``options.force``, is built again.

    Args:
        options: of :func:`text_parser`.
        recipe: the options that determine the database; its ``meta.json`` has them.
        inputs: the files it is made from.
        parts: folders of its text databases within the output.
        sides: contents that side files of the first part must have.

    Raises:
        UserError: the output is a database that was made otherwise or from an older input, or
            cannot be replaced.
    """
    output = Path(options.output)
    if not options.force and (output / parts[0] / "data.mdb").exists():
        try:
            databases = [TextDb(output / part) for part in parts]
            wrong = [n for n, side in (sides or {}).items() if databases[0].side(n) != side]
        except UserError as error:
            print(f"building {output} again: {error}")
        else:
            _require_same(output, databases[0].meta, recipe, wrong, inputs)
            print(f"{output} is made already ({len(databases[0])} records)")
            return False
    check_folder(options.output, force=True)
    return True


def _require_same(
    output: Path, meta: Any, recipe: dict[str, Any], wrong_sides: list[str], inputs: list[str]
) -> None:
    """Raise UserError for a database that was made otherwise, or from an older input."""
    differences = [
        f"made with --{name} {meta.get(name)}, not {value}"
        for name, value in recipe.items()
        if name != "output" and not is_same_value(meta.get(name), value)
    ]
    differences += [f"with another {name}" for name in wrong_sides]
    made = modified(output / "meta.json")
    existing = filter(Path.exists, map(Path, inputs))
    differences += [f"older than {path}" for path in existing if modified(path) > made]
    if differences:
        raise UserError(
            f"{output} exists already, {', '.join(differences)}; choose another --output, or "
            "pass --force to build it again"
        )


def is_same_value(recorded: Any, value: Any) -> bool:
    """Return whether values of an option are equal, or two spellings of one path."""
    if recorded == value or not (isinstance(recorded, str) and isinstance(value, str)):
        return recorded == value
    return Path(recorded).resolve() == Path(value).resolve()
