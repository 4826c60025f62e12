"""Check a split's predictions for a server: every id of the annotation once, and valid."""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from data.annotations import UniqueIds, read_lines
from data.stores.records import Id
from utils.decoding import check
from utils.errors import RecordError, UserError, brief
from utils.files import read_json
from utils.names import CLIP_NAMES, find_name, get_name

MAX_PREDICTIONS = 100
NAMED = 5  # ids that a message lists

Annotations = dict[str, dict]  # lines by id, in file order
RankingT = TypeVar("RankingT", bound=msgspec.Struct)


def read_annotations(path: str | Path, id_names: tuple[str, ...], *more: str) -> Annotations:
    """Return the JSON lines of an annotation file by id (of the fields ``id_names``).

    Raises:
        UserError: a line lacks its id or a field of ``more``, two have the same id, or the file is
            empty.
    """

    def read(raw: dict) -> tuple[str, dict]:
        id_ = find_name(raw, *id_names)
        lacking = next((name for name in more if raw.get(name) is None), None)
        if id_ is None or lacking:
            missing = lacking if id_ else id_names[0]
            raise RecordError(f"it has no {missing}; is it the annotation of this task?")
        return id_, raw

    lines: Annotations = {}
    ids = UniqueIds()
    for line in read_lines(path):
        id_, raw = line.read(read)
        ids.claim(id_, line)
        lines[id_] = raw
    return lines


def answered_ids(
    answered: Iterable[str], wanted: Annotations | None, where: object, partial: bool
) -> list[str]:
    """Return the annotated ids that have results: all, each once, in the annotation's order.

    Args:
        answered: ids of the results.
        wanted: the annotation, if there is one to compare with.
        where: the results, for messages.
        partial: ids may be missing.

    Raises:
        UserError: ids are missing, unknown or repeated (says how many, and names the first).
    """
    ids = list(answered)
    known = set(ids)
    wanted = {id_: {} for id_ in ids} if wanted is None else wanted
    if not partial:
        require_none(
            [id_ for id_ in wanted if id_ not in known],
            f"{where} lacks {{}} of {len(wanted)} ids of the annotation: evaluate the whole split, "
            "or pass --partial",
        )
    require_none(
        [id_ for id_ in known if id_ not in wanted],
        f"{where} has {{}} ids that the annotation lacks: are they of one split?",
    )
    if len(ids) > len(known):
        raise UserError(f"{where} answers {len(ids) - len(known)} ids twice; keep one of each")
    return [id_ for id_ in wanted if id_ in known]


def require_whole(where: object, mark: Mapping[str, Any] | None, partial: bool) -> None:
    """Raise UserError if results are marked as those of a part of the split, and must not be."""
    if mark and not partial:
        raise UserError(
            f"{where} is of a part of the split ({brief(mark)}): evaluate without "
            "--only_available, or pass --partial"
        )


def require_none(ids: list[str], message: str) -> None:
    """Raise UserError with ``message`` (``{}``: how many) and the first ids, if there are any."""
    if ids:
        named = ", ".join(sorted(ids)[:NAMED]) + ", …" * (len(ids) > NAMED)
        raise UserError(f"{message.format(len(ids))} ({named})")


def read_rankings(
    entries: Iterable[dict[str, Any]],
    kind: type[RankingT],
    where: str,
    wanted: Annotations | None,
    partial: bool,
) -> dict[str, RankingT]:
    """Return the rankings of a results file by query id, in the order of the annotation.

    Raises:
        UserError: an entry is not of ``kind`` (names the query), or see :func:`answered_ids`.
    """
    rankings = []
    for number, raw in enumerate(entries):
        try:
            ranking = check(raw, kind)
        except RecordError as error:
            query = brief(raw.get("desc_id"))
            raise UserError(f"{where}[{number}].{error} (query {query}); evaluate again") from None
        rankings.append((str(ranking.desc_id), ranking))
    by_id = dict(rankings)
    return {
        id_: by_id[id_] for id_ in answered_ids((i for i, _ in rankings), wanted, where, partial)
    }


def best_predictions(
    rows: Sequence[Sequence[float]], indices: Container[float], where: str, table: str = "video2idx"
) -> list:
    """Return the first rows of a ranked list; each begins with the index of a video.

    Raises:
        UserError: an index is not in ``table``.
    """
    for row in rows[:MAX_PREDICTIONS]:
        if row[0] not in indices:
            raise UserError(f"{where}: {row} names no index of {table}; evaluate again")
    return [[int(video), *rest] for video, *rest in rows[:MAX_PREDICTIONS]]


def format_answers(
    path: str | Path,
    wanted: Annotations | None,
    choices: Callable[[dict], int],
    partial: bool,
) -> dict:
    """Return the answers of a results file by id; ``choices`` of a line are their range.

    Raises:
        UserError: an answer is out of range, or see :func:`answered_ids`.
    """
    answers = read_json(path, dict[Id, int])
    ids = answered_ids(answers, wanted, path, partial)
    for id_ in ids:
        answer, count = answers[id_], choices(wanted[id_] if wanted else {})
        if not 0 <= answer < count:
            raise UserError(f"{path}: the answer to {id_} is {answer}, not 0 … {count - 1}")
    return {id_: answers[id_] for id_ in ids}


def count_answers(line: Mapping[str, Any]) -> int:
    """Return the number of answers a0, a1, … of a question."""
    return next(number for number in range(len(line) + 1) if f"a{number}" not in line)


def format_captions(path: str | Path, wanted: Annotations | None, partial: bool) -> list[dict]:
    """Return a caption of each clip of a file, with its moment (``ts``) if the annotation has one.

    Without an annotation (``wanted``), the clips are described by the lines of captions.

    Raises:
        UserError: a clip has not exactly one caption, or see :func:`answered_ids`.
    """
    lines = [
        line.read(lambda raw: (get_name(raw, *CLIP_NAMES.ids), raw)) for line in read_lines(path)
    ]
    ids = answered_ids((id_ for id_, _ in lines), wanted, path, partial)
    captions = dict(lines)
    clips = captions if wanted is None else wanted
    return [
        {name: clips[id_][name] for name in ("vid_name", "clip_id", "ts") if name in clips[id_]}
        | {"descs": [{"desc": _caption_text(captions[id_].get("descs"), f"{path}: clip {id_}")}]}
        for id_ in ids
    ]


def _caption_text(descs: Any, where: str) -> str:
    if isinstance(descs, list) and len(descs) == 1 and isinstance(descs[0], dict):
        text = descs[0].get("desc")
        if isinstance(text, str):
            return text
    raise UserError(f'{where} must have one caption, descs [{{"desc": text}}], not {brief(descs)}')
