"""What the README promises exists: files, commands, options."""

import contextlib
import importlib.util
import io
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
VALUE = (REPOSITORY / "docs" / "VALUE.md").read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    """Words of every command in bash blocks of README and VALUE.md that runs a script of ours."""
    found = []
    for block in re.findall(r"```bash\n(.*?)```", README + VALUE, flags=re.DOTALL):
        joined = block.replace("\\\n", " ")
        for line in joined.splitlines():
            words = shlex.split(line, comments=True)
            if any(is_ours(word) for word in words):
                found.append(words)
    return found


def is_ours(word: str) -> bool:
    return word.endswith((".py", ".sh")) and "$" not in word


@cache
def help_text(script: str) -> str:
    """What ``python SCRIPT --help`` prints."""
    spec = importlib.util.spec_from_file_location(f"readme_{Path(script).stem}", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as stopped:
        module.main(["--help"])
    assert stopped.value.code == 0
    return printed.getvalue()


def test_there_are_commands():
    assert len(commands()) > 5


@pytest.mark.parametrize("words", commands(), ids=lambda words: " ".join(words)[:60])
def test_every_command_names_scripts_and_options_that_exist(words, monkeypatch):
    place = next(number for number, word in enumerate(words) if is_ours(word))
    script = words[place]
    monkeypatch.chdir(REPOSITORY)
    assert (REPOSITORY / script).is_file(), script
    if script.endswith(".py"):
        known = set(re.findall(r"--[A-Za-z][\w-]*", help_text(script)))
        flags = {word.partition("=")[0] for word in words[place + 1 :] if word.startswith("--")}
        assert flags <= known, f"{script} lacks {sorted(flags - known)}"


def test_recipes_that_are_named_exist():
    for name in re.findall(r"config/[\w/-]+\.json", README + VALUE):
        assert (REPOSITORY / name).is_file(), name
    names = re.findall(r"^\|[^|]+\|[^|]+\|[^|]+\| `([\w-]+-\dgpu)` \|", VALUE, re.MULTILINE)
    assert len(names) == 11
    for name in names:
        assert (REPOSITORY / "config" / "value" / f"train-{name}.json").is_file(), name


def test_files_and_folders_of_the_layout_exist():
    section = README.partition("## Layout")[2].partition("\n## ")[0]
    first_cells = re.findall(r"^\| (`.+?) \|", section, flags=re.MULTILINE)
    names = " ".join(re.findall(r"`([^`]+)`", " ".join(first_cells))).split()
    assert len(names) > 10
    for name in names:
        assert list(REPOSITORY.glob(name)), name


def test_no_requirement_is_older_than_what_was_tested():
    pins = dict(
        re.findall(r"^([\w.-]+)==(\S+)$", (REPOSITORY / "constraints.txt").read_text(), re.M)
    )
    pins = {re.sub("[-_.]+", "-", name).lower(): version for name, version in pins.items()}
    asked = []
    for file in ("requirements.txt", "requirements-dev.txt"):
        text = (REPOSITORY / file).read_text()
        asked += re.findall(r"^([a-z][\w.-]+)(.*)$", text, re.M)
    pins["torch"] = "2.11"  # the suite ran on it, too
    assert len(asked) > 20
    for name, bound in asked:
        assert bound == f">={pins[re.sub('[-_.]+', '-', name).lower()]}", name
