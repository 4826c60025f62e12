"""Caption metrics: BLEU-1…4, METEOR 1.5, ROUGE-L and CIDEr over PTB tokens, in percent.

Scorers and Java programs are those of the ``pycocoevalcap`` package. The programs are run from
here, since its own wrappers write into the installed package, and hang after an error.
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

# METEOR reads its own numbers back, and not with a comma.
_LOCALE = ("-Duser.language=en", "-Duser.country=US")
# What the virtual machine says of its options, and the frames of a stack.
_NO_ERROR = re.compile(r"Picked up |NOTE: |\s+at |\s+\.\.\. \d+ more")

# Sets the signal that comes when the parent dies (PR_SET_PDEATHSIG = 1, SIGKILL = 9), then becomes
# the program. Done in a process of its own: after a fork, a program with threads may only exec.
_TIED_TO_PARENT = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""


def require_java() -> str:
    """The path of ``java``.

    Raises:
        UserError: there is none.
    """
    java = shutil.which("java")
    if java is None:
        raise UserError(
            "caption metrics need Java (PTB tokenizer, METEOR), and no java is on the PATH; "
            "install a JRE, e.g. apt-get install default-jre-headless"
        )
    return java


def try_scorers() -> None:
    """Score a made-up caption, so that what ails the programs shows before the work.

    Raises:
        UserError: Java is missing, or a program fails.
    """
    _try_scorers(require_java())


@cache
def _try_scorers(java: str) -> None:
    caption_scores({"trial": ["a dog runs"]}, {"trial": ["a dog is running home"]})


def score_lines(captions: Iterable[Mapping], references: Iterable[Mapping]) -> dict[str, float]:
    """:func:`caption_scores` of JSON lines ``{"clip_id", "descs": [{"desc"}, …]}``.

    Of a clip's captions the first counts; its references all do.

    Raises:
        UserError: as :func:`caption_scores`.
    """
    return caption_scores(
        first_texts(captions), {str(line["clip_id"]): line_texts(line) for line in references}
    )


def first_texts(lines: Iterable[Mapping]) -> dict[str, list[str]]:
    """The first caption of each JSON line, by clip id, as lists of one."""
    return {str(line["clip_id"]): line_texts(line)[:1] for line in lines}


def line_texts(line: Mapping) -> list[str]:
    """Captions of a JSON line.

    Raises:
        UserError: it has none.
    """
    texts = [desc["desc"] for desc in line.get("descs", [])]
    if not texts:
        raise UserError(f"clip {line['clip_id']} has no captions (descs) to score with")
    return texts


def caption_scores(
    captions: Mapping[str, Sequence[str]], references: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """Score one caption per clip against the references of the clip.

    Args:
        captions: by clip id, lists of one.
        references: by clip id, one or more.

    Returns:
        :data:`METRICS` × 100.

    Raises:
        UserError: the clips differ (names those missing), or Java is missing or fails.
    """
    return _scores(*_tokenized(captions, references))


def paragraph_scores(
    captions: Mapping[str, Sequence[str]],
    references: Mapping[str, Sequence[str]],
    paragraphs: Mapping[str, Sequence[str]],
) -> tuple[dict[str, float], dict[str, float]]:
    """:func:`caption_scores`, and the same of paragraphs, each one caption with one reference.

    Args:
        captions, references: by clip id, lists of one.
        paragraphs: of each the ids of its clips, in the order in which their tokens are joined.

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
    ids = list(references)
    tokenized = iter(_tokenize([text for i in ids for text in (*captions[i], *references[i])]))
    own, wanted = {}, {}
    for i in ids:
        own[i] = [next(tokenized) for _ in captions[i]]
        wanted[i] = [next(tokenized) for _ in references[i]]
    return own, wanted


def _scores(own: Tokenized, wanted: Tokenized) -> dict[str, float]:
    bleu, _ = Bleu(4).compute_score(wanted, own, verbose=0)
    rouge, _ = Rouge().compute_score(wanted, own)
    cider, _ = Cider().compute_score(wanted, own)
    values = (*bleu, _meteor_score(wanted, own), rouge, cider)
    return {name: 100 * float(value) for name, value in zip(METRICS, values, strict=True)}


def _require_same_clips(captions: Mapping[str, Sequence], references: Mapping) -> None:
    problems = [
        f"{len(missing)} clip(s) of the {there} are missing from the {here} ({_name(missing)})"
        for here, there, missing in (
            ("captions", "references", [i for i in references if i not in captions]),
            ("references", "captions", [i for i in captions if i not in references]),
        )
        if missing
    ]
    if problems:
        raise UserError(f"{'; '.join(problems)}; captions and references must be of one split")
    if not references:
        raise UserError("there are no captions to score")


def _name(ids: Sequence[str]) -> str:
    return ", ".join(ids[:_NAMED]) + (", …" if len(ids) > _NAMED else "")


# --- Java -----------------------------------------------------------------------------------


def _java(*arguments: str | Path) -> list[str]:
    """A command line; on Linux the program dies with this process, however that ends."""
    command = [require_java(), *_LOCALE, *map(str, arguments)]
    if sys.platform != "linux":
        return command
    return [sys.executable, "-I", "-S", "-c", _TIED_TO_PARENT, str(os.getpid()), *command]


def _tokenize(texts: Sequence[str]) -> list[str]:
    """PTB tokens in lower case, joined by spaces, without punctuation."""
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
    """One line of ASCII: anything else becomes spaces, and none are left at the ends."""
    ascii_only = "".join(char if char.isascii() and char.isprintable() else " " for char in text)
    return ascii_only.replace(_FIELD, " ").strip()


def _meteor_score(
    references: Mapping[str, Sequence[str]], captions: Mapping[str, Sequence[str]]
) -> float:
    """METEOR of the whole set (not the mean over clips), from 0 to 1."""
    with _Meteor() as meteor_program:
        statistics = [meteor_program.ask("SCORE", *references[i], captions[i][0]) for i in captions]
        values = [meteor_program.ask("EVAL", *statistics)]
        values += [meteor_program.answer() for _ in statistics]  # one per clip, then the whole
    return float(values[-1])


class _Meteor:
    """METEOR's program: answers a line with a line; ended and waited for when the block is left."""

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
        with suppress(BrokenPipeError):  # what it did not live to read
            self._questions.close()
        self._answers.close()
        self._errors.close()

    def ask(self, *fields: str) -> str:
        """Write one line; returns the first line of the answer."""
        with suppress(BrokenPipeError):  # answer() tells why
            self._questions.write(f" {_FIELD} ".join(fields).encode("ascii") + b"\n")
            self._questions.flush()
        return self.answer()

    def answer(self) -> str:
        """One line.

        Raises:
            UserError: the program has ended.
        """
        line = self._answers.readline().decode("ascii").strip()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            errors = self._errors.read().decode(errors="replace")
            raise UserError(f"METEOR failed: {_exception(errors)}")
        return line


def _exception(errors: str) -> str:
    """Return what a Java program died of: its exception and the first cause, not the frames of its
    stack; of another, the last line."""
    lines = [line.strip() for line in errors.splitlines() if line and not _NO_ERROR.match(line)]
    thrown = [line for line in lines if line.startswith(("Exception in", "Caused by:", "Error:"))]
    if not thrown:
        return (lines or ["it said nothing"])[-1]
    return " ".join(dict.fromkeys((thrown[0], thrown[-1])))
