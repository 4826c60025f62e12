"""What a person gets to see: moments as text, records, video files and a page."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.pictures import write_clip
from utils.errors import UserError
from utils.files import atomic_write
from utils.logger import LOGGER

_LONGEST_STEM = 60  # characters of a film's name in that of a clip


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a film shows or says what a sentence describes.

    Attributes:
        file: the film.
        start, end: seconds, within the film's length.
        score: comparable between sentences of one index; higher is better.
        text: what is spoken there.
        share: of the score in those of all moments listed with it.
        video: the film's id in the index.
        name: the film's path below the folder that was indexed.
        doubtful: it scores no better than sentences that have nothing to do with the films.
        note: what makes it worthless, such as features of an untrained network.
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
        """As in a JSON file: what may be false or empty stands there only where it is not."""
        entry = {
            "file": self.file,
            "start": self.start,
            "end": self.end,
            "score": self.score,
            "text": self.text,
        }
        if self.doubtful:
            entry["doubtful"] = True
        if self.note:
            entry["note"] = self.note
        return entry


Answers = Mapping[str, Sequence[Moment]]


def clock(seconds: float) -> str:
    """Return a time as h:mm:ss.s."""
    tenths = round(seconds * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{tenths // 10:02d}.{tenths % 10}"


def span(moment: Moment) -> str:
    """Return a moment's times for a person."""
    return f"{clock(moment.start)} to {clock(moment.end)}"


def as_records(answers: Answers) -> dict[str, list[dict[str, Any]]]:
    """Return answers as a JSON file has them: ``{sentence: [moment, …]}``."""
    return {sentence: [m.record() for m in moments] for sentence, moments in answers.items()}


def as_text(sentence: str, moments: Sequence[Moment]) -> str:
    """Return a sentence's answer for a terminal."""
    lines = [shown(sentence)]
    if moments and all(moment.doubtful for moment in moments):
        lines.append("  nothing found: these score no better than unrelated sentences do")
    if not moments:
        lines.append("  no film is long enough for a moment")
    for place, moment in enumerate(moments, start=1):
        doubt = "  (doubtful)" if moment.doubtful else ""
        facts = f"score {moment.score:.4g} ({moment.share:.0%} of those listed){doubt}"
        lines.append(f"{place:3}. {shown(moment.name)}  {span(moment)}  {facts}")
        if moment.text:
            lines.append(f"     “{shown(moment.text)}”")
    return "\n".join(lines)


def shown(text: str) -> str:
    """Return a text on one line, control characters written out."""
    plain = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in plain)


def write_clips(answers: Answers, folder: Path) -> list[Path]:
    """Write every moment as ``<sentence>-<place>_<film>_<start>-<end>.mp4``; return the files.

    A film that cannot be read is named in a warning, the others' moments are written.

    Raises:
        UserError: none of the films can be read.
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written, problems = [], []
    for number, moments in enumerate(answers.values(), start=1):
        for place, moment in enumerate(moments, start=1):
            stem = re.sub(r"[^\w.-]+", "_", Path(moment.name).stem)[:_LONGEST_STEM]
            times = f"{moment.start:.1f}-{moment.end:.1f}"
            target = folder / f"{number}-{place}_{stem}_{times}.mp4"
            try:
                write_clip(Path(moment.file), moment.start, moment.end, target)
                written.append(target)
            except UserError as problem:
                problems.append(str(problem))
    _say(problems, bool(written), "clip")
    return written


def _say(problems: Sequence[str], any_left: bool, what: str) -> None:
    unique = list(dict.fromkeys(problems))
    if unique and not any_left:
        raise UserError(f"no {what} can be made: {unique[0]}")
    for problem in unique:
        LOGGER.warning("no %s: %s", what, problem)


_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Moments</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.4 system-ui, sans-serif; }}
body {{ margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }}
ol {{ list-style: none; padding: 0; }}
li {{ display: flex; gap: 1rem; margin: 1rem 0; flex-wrap: wrap; }}
img, .none {{ width: 240px; border-radius: 6px; background: #8884; }}
.none {{ aspect-ratio: 16 / 9; }}
li div.about {{ flex: 1; min-width: 14rem; overflow-wrap: anywhere; }}
.time {{ font-variant-numeric: tabular-nums; }}
.doubtful {{ opacity: .6; }}
p {{ margin: .2rem 0; }}
</style></head><body>
{body}
</body></html>
"""


def write_page(answers: Answers, picture: Callable[[Moment], bytes], path: Path) -> None:
    """Write answers as one HTML file that needs no other.

    Args:
        answers: moments by sentence.
        picture: gives a moment's thumbnail, a JPEG file.
        path: of the page.
    """
    problems: list[str] = []
    body = []
    for sentence, moments in answers.items():
        body.append(f"<h2>{_markup(sentence)}</h2>")
        if moments and all(moment.doubtful for moment in moments):
            body.append("<p>Nothing found: these score no better than unrelated sentences do.</p>")
        cards = "\n".join(_card(moment, picture, problems) for moment in moments)
        body.append(f"<ol>\n{cards}\n</ol>" if moments else "<p>No film is long enough.</p>")
    with atomic_write(path) as temporary:
        temporary.write_text(_PAGE.format(body="\n".join(body)), encoding="utf-8")
    _say(problems, True, "thumbnail")


def _card(moment: Moment, picture: Callable[[Moment], bytes], problems: list[str]) -> str:
    try:
        data = base64.b64encode(picture(moment)).decode()
        image = f'<img alt="" src="data:image/jpeg;base64,{data}">'
    except UserError as problem:
        problems.append(str(problem))
        image = '<div class="none"></div>'
    words = f"<p>“{_markup(moment.text)}”</p>" if moment.text else ""
    note = f"<p>{_markup(moment.note)}</p>" if moment.note else ""
    doubt = " · doubtful" if moment.doubtful else ""
    return (
        f'<li{" class=doubtful" if moment.doubtful else ""}>{image}<div class="about">'
        f"<p><b>{_markup(moment.name)}</b></p>"
        f'<p class="time">{span(moment)} · score {moment.score:.4g} · '
        f"{moment.share:.0%} of those listed{doubt}</p>{words}{note}</div></li>"
    )


def _markup(text: str) -> str:
    """Text as HTML that shows it."""
    return html.escape(text.encode("utf-8", "replace").decode())
