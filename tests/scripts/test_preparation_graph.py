"""The graph of steps: what runs, why, in which order, and what a failure stops."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from scripts.preparation.graph import Graph, Step, Why, last_change
from scripts.preparation.process import run_script
from scripts.preparation.runner import Runner, sole_use
from tests.support import REPOSITORY
from utils.errors import UserError


class Kitchen:
    """Steps that write files and remember who ran."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ran: list[tuple[str, bool]] = []
        self.broken: dict[str, Exception] = {}

    def path(self, name: str) -> Path:
        return self.folder / name

    def step(self, name: str, *inputs: str, **more: object) -> Step:
        def action(rebuild: bool) -> None:
            if name in self.broken:
                raise self.broken[name]
            self.ran.append((name, rebuild))
            self.path(name).write_text(name)

        paths = tuple(map(self.path, inputs))
        return Step(name, f"cook {name}", action, (self.path(name),), paths, **more)

    def run(self, graph: Graph, forced: tuple[str, ...] = (), jobs: int = 1) -> list[str]:
        """Names of the steps that ran."""
        self.ran = []
        Runner(graph, graph.plan(forced), jobs, KeyError).run()
        return [name for name, _ in self.ran]

    def age(self, name: str, seconds: float) -> None:
        """Let a file be older."""
        when = time.time() - seconds
        os.utime(self.path(name), (when, when))


@pytest.fixture
def kitchen(tmp_path: Path) -> Kitchen:
    (tmp_path / "flour").write_text("")
    return Kitchen(tmp_path)


@pytest.fixture
def graph(kitchen: Kitchen) -> Graph:
    """flour → dough → bread → toast; jam; toast + jam → breakfast."""
    return Graph(
        [
            kitchen.step("breakfast", "toast", "jam"),
            kitchen.step("toast", "bread"),
            kitchen.step("jam"),
            kitchen.step("bread", "dough"),
            kitchen.step("dough", "flour"),
        ]
    )


def test_order_and_needs(graph):
    assert graph.levels == [["jam", "dough"], ["bread"], ["toast"], ["breakfast"]]
    assert graph.needs["breakfast"] == {"toast", "jam"} and graph.needs["dough"] == set()
    assert graph.listing().splitlines() == [
        "jam: cook jam",
        "dough: cook dough",
        "  bread: cook bread  ← dough",
        "    toast: cook toast  ← bread",
        "      breakfast: cook breakfast  ← jam, toast",
    ]
    lines = graph.dot().splitlines()
    assert lines[0] == "digraph {" and lines[-1] == "}" and '  "dough" -> "bread";' in lines


def test_a_second_run_does_nothing(kitchen, graph):
    assert sorted(kitchen.run(graph)) == ["bread", "breakfast", "dough", "jam", "toast"]
    assert graph.plan() == {} and kitchen.run(graph) == []


def test_what_is_older_than_its_input_is_made_anew(kitchen, graph):
    kitchen.run(graph)
    for name in ("flour", "dough", "bread", "toast", "jam", "breakfast"):
        kitchen.age(name, 100)
    assert graph.plan() == {}
    kitchen.age("bread", 50)
    plan = graph.plan()
    assert {name: reason.why for name, reason in plan.items()} == {
        "toast": Why.OLDER,
        "breakfast": Why.AFTER,
    }
    assert plan["toast"].text == f"{kitchen.path('bread')} is newer"
    kitchen.run(graph)
    assert kitchen.ran == [("toast", True), ("breakfast", True)]


def test_what_is_missing_is_made_and_what_needs_it_looked_at(kitchen, graph):
    kitchen.run(graph)
    kitchen.path("bread").unlink()
    assert [reason.why for reason in graph.plan().values()] == [Why.MISSING, Why.AFTER, Why.AFTER]
    assert kitchen.run(graph) == ["bread", "toast", "breakfast"]


def test_a_step_that_changes_nothing_spares_those_after_it(kitchen):
    """As the list of feature files, which stays untouched where it would say the same."""
    for name in ("toast", "jam"):
        kitchen.path(name).write_text("")
    graph = Graph(
        [
            Step("bread", "", lambda _: None, (kitchen.path("bread"),), (kitchen.path("flour"),)),
            kitchen.step("toast", "bread"),
        ]
    )
    kitchen.path("bread").write_text("")
    kitchen.age("bread", 100)
    assert list(graph.plan()) == ["bread", "toast"]
    assert kitchen.run(graph) == []


def test_forced_steps(kitchen, graph):
    kitchen.run(graph)
    chosen = graph.select(["b*d"])
    assert chosen == {"bread"}
    kitchen.run(graph, tuple(chosen))
    assert kitchen.ran == [("bread", True), ("toast", True), ("breakfast", True)]
    with pytest.raises(UserError, match="no step 'bred'; did you mean 'bread'"):
        graph.select(["bred"])


def test_only_some_steps(kitchen, graph):
    assert graph.only({"toast"}).order == ["dough", "bread", "toast"]
    kitchen.path("flour").unlink()
    graph.only({"jam"}).require_inputs()
    with pytest.raises(UserError, match=r"dough needs .*/flour, which does not exist"):
        graph.require_inputs()


def test_what_is_damaged_or_made_otherwise(kitchen):
    def check() -> None:
        if kitchen.path("jam").read_text() != "jam":
            raise UserError("mouldy")

    jam = kitchen.step("jam", check=check, otherwise=lambda: otherwise)
    graph, otherwise = Graph([jam]), None
    kitchen.path("jam").write_text("?")
    reason = graph.plan()["jam"]
    assert (reason.why, reason.text, reason.rebuild) == (Why.DAMAGED, "mouldy", True)
    assert kitchen.run(graph) == ["jam"] and graph.plan() == {}
    otherwise = "made with cherries"
    reason = graph.plan()["jam"]
    text = "made with cherries; --force jam replaces it"
    assert (reason.why, reason.text, reason.rebuild) == (Why.OTHERWISE, text, False)


def test_temporary_results(kitchen):
    graph = Graph([kitchen.step("dough", "flour", temporary=True), kitchen.step("bread", "dough")])
    assert next(iter(graph.plan().values())).text == "bread needs it"
    assert kitchen.run(graph) == ["dough", "bread"]
    assert not kitchen.path("dough").exists() and graph.plan() == {}
    assert kitchen.run(graph, ("dough",)) == ["dough", "bread"]  # forced: for what comes after
    kitchen.path("dough").write_text("left by a kill")
    kitchen.age("dough", 100)
    assert kitchen.run(graph) == [] and not kitchen.path("dough").exists()
    kitchen.path("bread").unlink()
    kitchen.path("dough").write_text("left by a kill")
    assert kitchen.run(graph) == ["bread"]


def test_a_temporary_result_outlives_a_failure_of_what_needs_it(kitchen):
    graph = Graph([kitchen.step("dough", temporary=True), kitchen.step("bread", "dough")])
    kitchen.broken["bread"] = UserError("burnt")
    with pytest.raises(UserError, match="1 of 2 steps failed: bread"):
        kitchen.run(graph)
    assert kitchen.path("dough").exists()
    kitchen.broken.clear()
    assert kitchen.run(graph) == ["bread"]


def test_a_failure_stops_what_needs_it_and_nothing_else(kitchen, graph, capsys):
    kitchen.broken["bread"] = UserError("burnt\nblack")
    with pytest.raises(UserError) as failed:
        kitchen.run(graph)
    assert sorted(name for name, _ in kitchen.ran) == ["dough", "jam"]
    assert capsys.readouterr().err == "failed: bread: burnt black\n"
    message = str(failed.value)
    assert "1 of 5 steps failed: bread; " in message and "toast, breakfast could not be" in message
    kitchen.broken = {"bread": OSError(28, "No space left on device"), "jam": UserError("sour")}
    kitchen.path("jam").unlink()
    with pytest.raises(UserError, match="2 of 4 steps failed: bread, jam"):
        kitchen.run(graph)
    assert "failed: bread: no space left on the disk of output: free" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyError("fatal"), ZeroDivisionError("a mistake of ours")])
def test_some_errors_end_the_run_at_once(kitchen, graph, error):
    kitchen.broken["jam"] = error
    with pytest.raises(type(error)):
        kitchen.run(graph)
    assert kitchen.ran == []


def test_steps_at_the_same_time(kitchen):
    """Two steps that wait for each other end only if both run at once; the third waits for both."""
    together = threading.Barrier(2, timeout=10)
    steps = [
        Step(
            name,
            "",
            lambda _, name=name: (together.wait(), kitchen.path(name).touch()),
            (kitchen.path(name),),
        )
        for name in ("left", "right")
    ]
    graph = Graph([kitchen.step("both", "left", "right"), *steps])
    assert kitchen.run(graph, jobs=2) == ["both"]


def test_what_is_begun_is_ended_first(kitchen):
    graph = Graph(
        [
            *(kitchen.step(f"dough {n}", temporary=True) for n in (1, 2)),
            *(kitchen.step(f"bread {n}", f"dough {n}") for n in (1, 2)),
        ]
    )
    assert kitchen.run(graph) == ["dough 1", "bread 1", "dough 2", "bread 2"]


def test_mistakes_of_ours(kitchen):
    with pytest.raises(ValueError, match="one name or output"):
        Graph([kitchen.step("jam"), kitchen.step("jam")])
    with pytest.raises(ValueError, match=r"[Cc]ircular"):
        Graph([kitchen.step("egg", "hen"), kitchen.step("hen", "egg")])


def test_the_last_change_of_a_folder(tmp_path):
    inner = tmp_path / "folder" / "inner" / "file"
    inner.parent.mkdir(parents=True)
    inner.write_text("")
    (inner.parent / "dangling").symlink_to("nowhere")
    past = time.time_ns() - 10**12
    for path in (inner, inner.parent, inner.parent.parent):
        os.utime(path, ns=(past, past))
    assert last_change(tmp_path / "folder") == past
    os.utime(inner, ns=(past + 1, past + 1))
    assert last_change(tmp_path / "folder") == past + 1


def test_an_input_dated_in_the_future_makes_its_outputs_older_once(kitchen, graph):
    kitchen.run(graph)
    kitchen.age("flour", -(10**6))
    assert graph.plan()["dough"].why is Why.OLDER
    kitchen.run(graph)
    assert graph.plan() == {}


def test_one_process_at_a_time(tmp_path, capsys):
    code = f"""
import sys, time
sys.path.insert(0, {str(REPOSITORY)!r})
from pathlib import Path
from scripts.preparation.runner import sole_use
with sole_use(Path({str(tmp_path)!r})):
    print("holds it", flush=True)
    sys.stdin.read()
    Path({str(tmp_path / "done")!r}).touch()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        threading.Timer(0.3, other.stdin.close).start()
        with sole_use(tmp_path):
            assert (tmp_path / "done").exists()
    assert "waiting for another process" in capsys.readouterr().out


def test_scripts_in_processes_of_their_own(tmp_path):
    (tmp_path / "bad.csv").write_text("a,b\n")
    options = ("--task", "how2r", "--output", tmp_path / "out.jsonl", "--annotation")
    with pytest.raises(UserError, match=r"bad\.csv:1 has 2 cells instead of 4"):
        run_script("convert_annotations", *options, tmp_path / "bad.csv")
    (tmp_path / "good.csv").write_text("v,[60:120],[61.5:63],A dog\n")
    run_script("convert_annotations", *options, tmp_path / "good.csv")
    assert (tmp_path / "out.jsonl").exists()
    with pytest.raises(RuntimeError, match="exit code 1"):
        run_script("no_such_script")
