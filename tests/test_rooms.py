"""Imports point one way: a folder imports from itself and those below it, never in a circle."""

import ast
import re
from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.support import REPOSITORY

# From top to bottom; "" is the scripts of the top folder. CONTRIBUTING.md draws the same picture.
ROOMS = (
    "two_stream_eval",
    "",
    "scripts",
    "hero",
    "search",
    "evaluation",
    "engine",
    "model",
    "data.check",
    "data.prepare",
    "data",
    "data.stores",
    "optim",
    "config",
    "utils",
)


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


MODULES = {
    module_name(path): path
    for path in [
        *REPOSITORY.glob("*.py"),
        *(file for room in ROOMS if room for file in (REPOSITORY / room).rglob("*.py")),
        *(REPOSITORY / "data").rglob("*.py"),
    ]
}


def room_of(module: str) -> str:
    """The innermost room that holds a module."""
    rooms = [room for room in ROOMS if room and (module == room or module.startswith(f"{room}."))]
    return max(rooms, key=len, default="")


def imported(module: str) -> Iterator[str]:
    """Modules of the repository that a module imports, wherever in its text it does so."""
    yield from imports_of(module, ast.walk(parsed(module)))


def imported_for_types(module: str) -> Iterator[str]:
    """Those that only type checkers import."""
    for node in ast.walk(parsed(module)):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from imports_of(module, node.body)


def parsed(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imports_of(module: str, nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: write the whole name of what is imported"
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        yield from (name for name in names if name in MODULES and name != module)


IMPORTS = {module: sorted(set(imported(module))) for module in sorted(MODULES)}


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room or "top")
def test_a_room_imports_from_rooms_below(room):
    level = ROOMS.index(room)
    upwards = [
        f"{module} → {other}"
        for module, others in IMPORTS.items()
        if room_of(module) == room
        for other in others
        if ROOMS.index(room_of(other)) < level
    ]
    assert not upwards


def test_the_model_knows_batches_alone_of_data():
    """Of an objective's own batch it may know the type (``if TYPE_CHECKING``)."""
    for module, others in IMPORTS.items():
        if room_of(module) == "model":
            running = set(others) - set(imported_for_types(module))
            of_data = {other for other in running if room_of(other).startswith("data")}
            assert of_data <= {"data", "data.batch"}, module


def test_no_modules_import_each_other():
    packages = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    graph = {
        # Importing from a package runs its __init__, which may gather what its modules hold.
        module: [other for other in others if other not in packages]
        for module, others in IMPORTS.items()
    }
    assert len(list(TopologicalSorter(graph).static_order())) == len(graph)


def test_the_span_head_is_known_to_the_model_alone():
    for name, path in MODULES.items():
        if room_of(name) != "model":
            text = path.read_text(encoding="utf-8")
            assert "video_st_predictor" not in text and "video_ed_predictor" not in text, name


def test_no_test_module_imports_another():
    """What several need lies in ``tests/support``, or in the ``conftest.py`` of their folder."""
    statement = re.compile(r"^\s*from tests\b.*\b(test_\w+)", re.MULTILINE)
    importing = [
        f"{path.relative_to(REPOSITORY)} → {name}"
        for path in (REPOSITORY / "tests").rglob("*.py")
        for name in statement.findall(path.read_text(encoding="utf-8"))
        if name != path.stem  # a process that it starts
    ]
    assert not importing
