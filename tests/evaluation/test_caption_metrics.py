"""Caption metrics against the record, and what goes wrong with Java."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation import caption_metrics
from evaluation.caption_metrics import METRICS, caption_scores, require_java, score_lines
from tests.support import REPOSITORY
from tests.support.survival import running, wait_until
from utils.errors import UserError
from utils.files import read_jsonl


def lines(path):
    return [line for _, line in read_jsonl(path)]


def children():
    """Processes of this one, the dead that nobody waited for included."""
    done = subprocess.run(
        ["ps", "--ppid", str(os.getpid()), "-o", "comm="], capture_output=True, text=True
    )
    return [name for name in done.stdout.split() if name != "ps"]


@pytest.mark.golden
@pytest.mark.java
def test_recorded_scores(golden, monkeypatch):
    # Java takes its language from the locale, and in this one writes decimals with a comma.
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=de -Duser.country=DE")
    metrics = golden / "metrics"
    scores = score_lines(
        lines(metrics / "caption_hyps.jsonl"), lines(metrics / "caption_refs.jsonl")
    )
    recorded = json.loads((metrics / "caption_scores.json").read_text())
    assert scores == {name: pytest.approx(value, abs=1e-2) for name, value in recorded.items()}
    assert "java" not in children()


@pytest.mark.java
def test_tokens_by_hand():
    texts = [
        " It's DARK (again) -- isn\u2019t it?\n",
        "",
        "caf\u00e9 ||| na\u00efve\ttea; 3.5 cups!",
    ]
    assert caption_metrics._tokenize(texts) == [
        "it 's dark -lrb- again -rrb- isn t it",  # brackets stay: recorded scores have them
        "",
        "caf na ve tea 3.5 cups",
    ]


@pytest.mark.java
def test_hand_worked_scores(monkeypatch):
    monkeypatch.setattr(caption_metrics, "_meteor_score", lambda references, captions: 0.25)
    # Three clips, so that CIDEr's document frequencies mean something. Captions equal references
    # but for clip "c", which has 2 of 4 words right: 10 of 12 unigrams; lengths are equal.
    references = {
        "a": ["a dog runs home"],
        "b": ["two cats sleep here"],
        "c": ["one red car stops"],
    }
    captions = {**references, "c": ["one red bus turns"]}
    scores = caption_scores(captions, references)
    assert list(scores) == list(METRICS)
    assert scores["Bleu_1"] == pytest.approx(100 * 10 / 12, abs=1e-3)
    # ROUGE-L of clip c: precision = recall = 2/4, so F = 1/2.
    assert scores["ROUGE_L"] == pytest.approx(100 * (1 + 1 + 0.5) / 3, abs=1e-3)
    assert scores["METEOR"] == 25.0


def test_missing_clips_are_named():
    references = {str(i): ["a"] for i in range(9)}
    captions = {"0": ["a"], "x": ["a"]}
    with pytest.raises(UserError) as error:
        caption_scores(captions, references)
    assert "8 clip(s) of the references are missing from the captions (1, 2, 3, 4, 5, …)" in str(
        error.value
    )
    assert "1 clip(s) of the captions are missing from the references (x)" in str(error.value)


def test_references_without_captions():
    with pytest.raises(UserError, match="clip 7 has no captions"):
        score_lines([{"clip_id": 7, "descs": [{"desc": "a"}]}], [{"clip_id": 7}])


def test_missing_java_is_one_clear_error(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"need Java.*JRE"):
        require_java()
    with pytest.raises(UserError, match=r"need Java.*JRE"):
        caption_scores({"1": ["a"]}, {"1": ["a"]})


@pytest.mark.parametrize("tokenizer_works", [False, True])
def test_failing_java_is_reported_and_leaves_no_process(monkeypatch, tmp_path, tokenizer_works):
    # Stands in for Java: as tokenizer it echoes, as METEOR it fails at once.
    fake = tmp_path / "java"
    echo = "*PTBTokenizer*) exec cat;;" if tokenizer_works else ""
    fake.write_text(f"#!/bin/sh\ncase \"$*\" in {echo}\nesac\necho 'no memory' >&2; exit 3\n")
    fake.chmod(fake.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program = "METEOR" if tokenizer_works else "the PTB tokenizer"
    before = children()
    with pytest.raises(UserError, match=f"{program} failed: no memory"):
        caption_scores({"1": ["a b"], "2": ["c"]}, {"1": ["a c"], "2": ["c"]})
    assert children() == before


STACK = """Picked up JAVA_TOOL_OPTIONS: -Dx=y
Exception in thread "main" java.util.InputMismatchException
\tat java.base/java.util.Scanner.throwFor(Scanner.java:939)
\tat Meteor.main(Unknown Source)
"""


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (STACK, 'Exception in thread "main" java.util.InputMismatchException'),
        (
            STACK + "Caused by: java.io.IOException: No space left on device\n\t... 3 more\n",
            'Exception in thread "main" java.util.InputMismatchException '
            "Caused by: java.io.IOException: No space left on device",
        ),
        ("Error: Unable to access jarfile x.jar\n", "Error: Unable to access jarfile x.jar"),
        ("loading\nkilled\n", "killed"),
        ("", "it said nothing"),
    ],
)
def test_what_a_java_program_died_of(said, shown):
    assert caption_metrics._exception(said) == shown


SLEEPER = """
import sys, time
from evaluation import caption_metrics
with caption_metrics._Meteor() as meteor:
    print(meteor._process.pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_programs_die_with_the_process(tmp_path, how):
    # A stand-in that never reads its input: only the death of its parent ends it.
    fake = tmp_path / "java"
    fake.write_text("#!/bin/sh\nexec sleep 60\n")
    fake.chmod(fake.stat().st_mode | stat.S_IEXEC)
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPER],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": "."},
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        child = Path("/proc") / process.stdout.readline().strip()
        wait_until(lambda: b"sleep" in (child / "cmdline").read_bytes())
        process.send_signal(how)
        process.wait()
    wait_until(lambda: not running(child))
