"""Moments for people: as text, JSON records, video files and a page."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from search.pictures import write_clip
from utils.errors import UserError
from utils.files import atomic_write
from utils.logger import LOGGER

_MAX_STEM = 60  # characters of a film's name in that of a clip
_PAGE = Path(__file__).with_name("answers.html")


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a film shows or says what a sentence describes.

    Attributes:
        file: path of the film.
        start, end: seconds, within the film's length.
        score: comparable between sentences of one index; higher is better.
        text: what is spoken there.
        share: of the score in those of all moments listed with it.
        video: id of the film in the index.
        name: path of the film below the folder that was indexed.
        doubtful: whether it scores no better than sentences unrelated to the films.
        note: a warning, such as features of an untrained network.
    """

    file: str
    start: float
    end: float
    score: float
    text: str
    share: float
    video: int
    name: str
    doubtful: bool = False
    note: str = ""

    def record(self) -> dict[str, Any]:
        """Return the moment as JSON files have it: without ``doubtful`` and ``note`` if empty."""
        names = ["file", "start", "end", "score", "text"]
        names += [name for name in ("doubtful", "note") if getattr(self, name)]
        return {name: getattr(self, name) for name in names}


Answers = Mapping[str, Sequence[Moment]]


def clock(seconds: float) -> str:
    """Return a time as h:mm:ss.s."""
    minutes, tenths = divmod(round(seconds * 10), 600)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{tenths // 10:02d}.{tenths % 10}"


def span(moment: Moment) -> str:
    """Return the times of a moment."""
    return f"{clock(moment.start)} to {clock(moment.end)}"


def as_records(answers: Answers) -> dict[str, list[dict[str, Any]]]:
    """Return answers as JSON files have them: ``{sentence: [moment, …]}``."""
    return {sentence: [m.record() for m in moments] for sentence, moments in answers.items()}


def as_text(sentence: str, moments: Sequence[Moment]) -> str:
    """Return the answer to a sentence for a terminal."""
    lines = [one_line(sentence)]
    if not moments:
        lines.append("  no film is long enough for a moment")
    elif all(moment.doubtful for moment in moments):
        lines.append("  nothing found: these score no better than unrelated sentences do")
    for rank, moment in enumerate(moments, start=1):
        doubt = "  (doubtful)" if moment.doubtful else ""
        facts = f"score {moment.score:.4g} ({moment.share:.0%} of those listed){doubt}"
        lines.append(f"{rank:3}. {one_line(moment.name)}  {span(moment)}  {facts}")
        if moment.text:
            lines.append(f"     “{one_line(moment.text)}”")
    return "\n".join(lines)


def one_line(text: str) -> str:
    """Return a text on one line, control characters escaped."""
    plain = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in plain)


def write_clips(answers: Answers, folder: Path) -> list[Path]:
    """Write every moment as ``<sentence>-<place>_<film>_<start>-<end>.mp4``; return the files.

    Films that cannot be read are named in a warning, and the other moments written.

    Raises:
        UserError: none of the films can be read.
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written, problems = [], []
    for number, moments in enumerate(answers.values(), start=1):
        for rank, moment in enumerate(moments, start=1):
            stem = re.sub(r"[^\w.-]+", "_", Path(moment.name).stem)[:_MAX_STEM]
            times = f"{moment.start:.1f}-{moment.end:.1f}"
            target = folder / f"{number}-{rank}_{stem}_{times}.mp4"
            try:
                write_clip(Path(moment.file), moment.start, moment.end, target)
                written.append(target)
            except UserError as problem:
                problems.append(str(problem))
    if problems and not written:
        raise UserError(f"no clip can be made: {problems[0]}")
    _warn("clip", problems)
    return written


def _warn(what: str, problems: Sequence[str]) -> None:
    for problem in dict.fromkeys(problems):
        LOGGER.warning("no %s: %s", what, problem)


def write_page(answers: Answers, thumbnail: Callable[[Moment], bytes], path: Path) -> None:
    """Write answers as one self-contained HTML file, with JPEG thumbnails."""
    problems: list[str] = []
    body = []
    for sentence, moments in answers.items():
        body.append(f"<h2>{_escape(sentence)}</h2>")
        if moments and all(moment.doubtful for moment in moments):
            body.append("<p>Nothing found: these score no better than unrelated sentences do.</p>")
        cards = "\n".join(_card(moment, thumbnail, problems) for moment in moments)
        body.append(f"<ol>\n{cards}\n</ol>" if moments else "<p>No film is long enough.</p>")
    page = Template(_PAGE.read_text(encoding="utf-8")).substitute(body="\n".join(body))
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    _warn("thumbnail", problems)


def _card(moment: Moment, thumbnail: Callable[[Moment], bytes], problems: list[str]) -> str:
    try:
        data = base64.b64encode(thumbnail(moment)).decode()
        image = f'<img alt="" src="data:image/jpeg;base64,{data}">'
    except UserError as problem:
        problems.append(str(problem))
        image = '<div class="none"></div>'
    words = f"<p>“{_escape(moment.text)}”</p>" if moment.text else ""
    note = f"<p>{_escape(moment.note)}</p>" if moment.note else ""
    doubt = " · doubtful" if moment.doubtful else ""
    return (
        f'<li{" class=doubtful" if moment.doubtful else ""}>{image}<div class="about">'
        f"<p><b>{_escape(moment.name)}</b></p>"
        f'<p class="time">{span(moment)} · score {moment.score:.4g} · '
        f"{moment.share:.0%} of those listed{doubt}</p>{words}{note}</div></li>"
    )


def _escape(text: str) -> str:
    """Return HTML that shows a text."""
    return html.escape(text.encode("utf-8", "replace").decode())
