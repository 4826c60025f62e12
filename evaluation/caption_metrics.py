"""Caption metrics: BLEU-1…4, METEOR 1.5, ROUGE-L and CIDEr over PTB tokens, in percent.

Scorers and Java programs are those of the ``pycocoevalcap`` package; its wrappers of the programs
are not used: they write into the installed package, and hang after an error.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Self

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor import meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer import ptbtokenizer

from utils.errors import UserError

METRICS = ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "METEOR", "ROUGE_L", "CIDEr")

_METEOR = Path(meteor.__file__).parent / meteor.METEOR_JAR
_PTB = Path(ptbtokenizer.__file__).parent / ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR
_PUNCTUATION = frozenset(ptbtokenizer.PUNCTUATIONS)
_FIELD = "|||"  # METEOR's separator
_NAMED = 5  # ids that a message lists

# METEOR parses its own numbers, which must have a decimal point.
_LOCALE = ("-Duser.language=en", "-Duser.country=US")
# Notes of the virtual machine on its options, and stack frames.
_NO_ERROR = re.compile(r"Picked up |NOTE: |\s+at |\s+\.\.\. \d+ more")

# Sets the signal to receive when the parent dies (PR_SET_PDEATHSIG = 1, SIGKILL = 9), then becomes
# the program. In a process of its own: after a fork, a program with threads may only exec.
_TIED_TO_PARENT = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""


def require_java() -> str:
    """Return the path of ``java``, or raise UserError if there is none."""
    java = shutil.which("java")
    if java is None:
        raise UserError(
            "caption metrics need Java (PTB tokenizer, METEOR), and no java is on the PATH; "
            "install a JRE, e.g. apt-get install default-jre-headless"
        )
    return java


def try_scorers() -> None:
    """Score a trial caption: raise UserError before the work if Java is missing or fails."""
    _try_scorers(require_java())


@cache
def _try_scorers(java: str) -> None:
    caption_scores({"trial": ["a dog runs"]}, {"trial": ["a dog is running home"]})


def score_lines(captions: Iterable[Mapping], references: Iterable[Mapping]) -> dict[str, float]:
    """Score JSON lines ``{"clip_id", "descs": [{"desc"}, …]}`` with :func:`caption_scores`.

    Only the first caption of a clip counts, but all of its references.

    Raises:
        UserError: as :func:`caption_scores`.
    """
    return caption_scores(texts_by_clip(captions, 1), texts_by_clip(references))


def texts_by_clip(lines: Iterable[Mapping], limit: int | None = None) -> dict[str, list[str]]:
    """Return the captions of JSON lines, at most ``limit`` of each, by clip id.

    Raises:
        UserError: a line has none.
    """
    texts: dict[str, list[str]] = {}
    for line in lines:
        texts[str(line["clip_id"])] = own = [desc["desc"] for desc in line.get("descs", [])][:limit]
        if not own:
            raise UserError(f"clip {line['clip_id']} has no captions (descs) to score with")
    return texts


def caption_scores(
    captions: Mapping[str, Sequence[str]], references: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """Return :data:`METRICS` × 100 of captions (by clip id, lists of one) with their references.

    Raises:
        UserError: the clips differ (names those missing), or Java is missing or fails.
    """
    return _scores(*_tokenized(captions, references))


def paragraph_scores(
    captions: Mapping[str, Sequence[str]],
    references: Mapping[str, Sequence[str]],
    paragraphs: Mapping[str, Sequence[str]],
) -> tuple[dict[str, float], dict[str, float]]:
    """Return :func:`caption_scores` of clips, and of paragraphs with one reference each.

    Args:
        captions, references: by clip id, lists of one.
        paragraphs: clip ids of each, in the order in which their tokens are joined.

    Raises:
        UserError: as :func:`caption_scores`.
    """
    sides = _tokenized(captions, references)
    joined = (
        {name: [" ".join(side[i][0] for i in ids)] for name, ids in paragraphs.items()}
        for side in sides
    )
    return _scores(*sides), _scores(*joined)


Tokenized = dict[str, list[str]]  # by clip id, texts of tokens that are joined by spaces


def _tokenized(
    captions: Mapping[str, Sequence[str]], references: Mapping[str, Sequence[str]]
) -> tuple[Tokenized, Tokenized]:
    _require_same_clips(captions, references)
    require_java()
    sides = [{i: side[i] for i in references} for side in (captions, references)]
    tokenized = iter(_tokenize([text for side in sides for own in side.values() for text in own]))
    own, true = ({i: [next(tokenized) for _ in side[i]] for i in side} for side in sides)
    return own, true


def _scores(captions: Tokenized, references: Tokenized) -> dict[str, float]:
    bleu, _ = Bleu(4).compute_score(references, captions, verbose=0)
    rouge, _ = Rouge().compute_score(references, captions)
    cider, _ = Cider().compute_score(references, captions)
    values = (*bleu, _meteor_score(references, captions), rouge, cider)
    return {name: 100 * float(value) for name, value in zip(METRICS, values, strict=True)}


def _require_same_clips(captions: Mapping[str, Sequence], references: Mapping) -> None:
    sides = {"captions": captions, "references": references}
    problems = []
    for here, there in (("captions", "references"), ("references", "captions")):
        missing = [id_ for id_ in sides[there] if id_ not in sides[here]]
        if missing:
            named = ", ".join(missing[:_NAMED]) + ", …" * (len(missing) > _NAMED)
            problems.append(
                f"{len(missing)} clip(s) of the {there} are missing from the {here} ({named})"
            )
    if problems:
        raise UserError(f"{'; '.join(problems)}; captions and references must be of one split")
    if not references:
        raise UserError("there are no captions to score")


# --- Java -----------------------------------------------------------------------------------


def _java(*arguments: str | Path) -> list[str]:
    """Return a command line; on Linux the program dies with this process, however that ends."""
    command = [require_java(), *_LOCALE, *map(str, arguments)]
    if sys.platform != "linux":
        return command
    return [sys.executable, "-I", "-S", "-c", _TIED_TO_PARENT, str(os.getpid()), *command]


def _tokenize(texts: Sequence[str]) -> list[str]:
    """Return PTB tokens in lower case, joined by spaces, without punctuation."""
    command = _java("-cp", _PTB, "edu.stanford.nlp.process.PTBTokenizer")
    lines = "".join(f"{_clean(text)}\n" for text in texts)
    done = subprocess.run(
        [*command, "-preserveLines", "-lowerCase"],
        input=lines,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    tokenized = done.stdout.splitlines()
    if done.returncode or len(tokenized) != len(texts):
        raise UserError(f"the PTB tokenizer failed: {_exception(done.stderr)}")
    return [
        " ".join(word for word in line.split() if word not in _PUNCTUATION) for line in tokenized
    ]


def _clean(text: str) -> str:
    """Return one line of ASCII: anything else becomes spaces, which are stripped at the ends."""
    ascii_only = "".join(char if char.isascii() and char.isprintable() else " " for char in text)
    return ascii_only.replace(_FIELD, " ").strip()


def _meteor_score(
    references: Mapping[str, Sequence[str]], captions: Mapping[str, Sequence[str]]
) -> float:
    """Return METEOR of the whole set (not the mean over clips), from 0 to 1."""
    with _Meteor() as program:
        statistics = [program.ask("SCORE", *references[i], captions[i][0]) for i in captions]
        value = program.ask("EVAL", *statistics)
        for _ in statistics:  # one value per clip, then the whole set's
            value = program.answer()
    return float(value)


class _Meteor:
    """METEOR's program, which answers a line with a line; it ends with the ``with`` block."""

    def __enter__(self) -> Self:
        self._errors = tempfile.TemporaryFile()
        command = _java(
            "-Xmx2G", "-XX:+UseSerialGC", "-jar", _METEOR, "-", "-", "-stdio", "-l", "en", "-norm"
        )
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._errors)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._questions, self._answers = self._process.stdin, self._process.stdout
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        with suppress(BrokenPipeError):  # it ended before reading all
            self._questions.close()
        self._answers.close()
        self._errors.close()

    def ask(self, *fields: str) -> str:
        """Write one line; return the first line of the answer."""
        with suppress(BrokenPipeError):  # answer() raises the error
            self._questions.write(f" {_FIELD} ".join(fields).encode("ascii") + b"\n")
            self._questions.flush()
        return self.answer()

    def answer(self) -> str:
        """Read one line, or raise UserError if the program has ended."""
        line = self._answers.readline().decode("ascii").strip()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            errors = self._errors.read().decode(errors="replace")
            raise UserError(f"METEOR failed: {_exception(errors)}")
        return line


def _exception(errors: str) -> str:
    """Return a Java program's exception and its first cause, without the stack, or the last line
    of another error."""
    lines = [line.strip() for line in errors.splitlines() if line and not _NO_ERROR.match(line)]
    thrown = [line for line in lines if line.startswith(("Exception in", "Caused by:", "Error:"))]
    if not thrown:
        return (lines or ["it said nothing"])[-1]
    return " ".join(dict.fromkeys((thrown[0], thrown[-1])))
