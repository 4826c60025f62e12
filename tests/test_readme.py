"""What README and docs promise exists: files, commands, options, links."""

import re
import shlex

import pytest

from tests.support import REPOSITORY
from tests.support.documents import help_text

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PAGES = {
    path.relative_to(REPOSITORY).as_posix(): path.read_text(encoding="utf-8")
    for path in (
        *REPOSITORY.glob("*.md"),
        *REPOSITORY.glob("docs/*.md"),
        REPOSITORY / "benchmarks/README.md",
    )
}


def commands() -> list[list[str]]:
    """Words of every command of the pages' bash blocks that runs a script of ours."""
    found = []
    blocks = re.findall(
        r"^ *```bash\n(.*?)```", "\n".join(PAGES.values()), re.DOTALL | re.MULTILINE
    )
    for block in blocks:
        joined = block.replace("\\\n", " ")
        for line in joined.splitlines():
            words = shlex.split(line, comments=True)
            if any(is_ours(word) for word in words):
                found.append(words)
    return found


def is_ours(word: str) -> bool:
    return word.endswith((".py", ".sh")) and "$" not in word


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


@pytest.mark.parametrize("page", PAGES)
def test_recipes_that_are_named_exist(page):
    for name in re.findall(r"config/[\w/-]+\.json", PAGES[page]):
        assert (REPOSITORY / name).is_file(), name


def test_each_task_of_value_has_a_recipe():
    row = r"^\|[^|]+\|[^|]+\|[^|]+\| `([\w-]+-\dgpu)` \|"
    names = re.findall(row, PAGES["docs/VALUE.md"], re.MULTILINE)
    assert len(names) == 11
    for name in names:
        assert (REPOSITORY / "config" / "value" / f"train-{name}.json").is_file(), name


def anchors(page: str) -> set[str]:
    """Of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)#\s]*(?:#[^)\s]+)?)\)", PAGES[page]):
        if target.startswith(("http", "mailto:")):
            continue
        name, _, heading = target.partition("#")
        path = ((REPOSITORY / page).parent / name).resolve() if name else REPOSITORY / page
        assert path.exists(), target
        if heading:
            assert heading in anchors(path.read_text(encoding="utf-8")), target


def test_the_readme_is_short():
    assert len(README.encode()) <= 15_000


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
