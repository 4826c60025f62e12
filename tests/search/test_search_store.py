"""The index of a search: whole films or none, whoever reads, writes, or is killed meanwhile."""

import dataclasses
import errno
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from search import database
from search.records import Line, Maker, NewFilm
from search.store import Index, IndexArrays, IndexWriter
from tests.support import REPOSITORY
from tests.support.index_content import content
from utils.errors import UserError, as_user_error

WIDTH = 4
MAKER = Maker("hero", "ab" * 32, 1.5, WIDTH, "cd" * 32, extractors={"resnet": {"weights": "r.pth"}})
ODD_NAMES = (
    "a b.mp4",
    'it\'s "quoted".mp4',
    "two\nlines.mp4",
    "Füße/日本.mkv",
    os.fsdecode(b"no-text-\xff.mp4"),
    "%_'; DROP TABLE films; --",
)


def film(name: str, value: int = 1, rows: int = 3, **more) -> NewFilm:
    """A film of two segments whose every frame, and spoken word, is ``value``."""
    frames = [(at, np.full((rows, WIDTH), value, np.float16)) for at in (0, rows - 1)]
    lines = [Line(1.0, 2.5, f"word{value} one"), Line(2.0, 4.0, f"word{value} two")]
    return NewFilm(name, 1.5 * (2 * rows - 1), frames, lines, **more)


def put(folder: Path, *films: NewFilm) -> None:
    with IndexWriter(folder, MAKER) as writer:
        for one in films:
            writer.put(one)


def test_a_film_comes_back(tmp_path):
    given = film("a.mp4", 7, file=tmp_path / "a.mp4", note="cut short", source="{}")
    put(tmp_path / "index", given)
    index = Index.open(tmp_path / "index")
    (one,) = index.films
    assert (one.name, one.file, one.seconds) == ("a.mp4", tmp_path / "a.mp4", 7.5)
    assert (one.note, one.source) == ("cut short", "{}")
    assert [(s.film, s.rows, s.first_frame) for s in index.segments] == [
        (one.id, 3, 0),
        (one.id, 3, 2),
    ]
    assert index.frames.dtype == np.float16 and isinstance(index.frames, np.memmap)
    assert (index.frames == 7).all() and index.frames.shape == (6, WIDTH)
    assert index.lines(one.id)[1] == Line(2.0, 4.0, "word7 two", one.id)
    assert index.words(one.id, 2.5, 9) == "word7 two"
    assert index.words(one.id, 0, 2.1) == "word7 one word7 two"
    assert index.words(one.id, 4, 5) == ""
    assert index.maker == MAKER


def test_an_index_in_memory_tells_the_same(tmp_path):
    films = [film("b", 2), film("a", 1, rows=5)]
    put(tmp_path, *films)
    assert content(IndexArrays(MAKER, films)) == content(Index.open(tmp_path))


@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_are_what_files_are_called(tmp_path, name):
    folder = tmp_path / name.replace("/", " ") / "index?mode=ro#é"
    put(folder, film(name, 1, file=Path("/films", name)), film(name + "2", 2))
    put(folder, film(name, 3))
    index = Index.open(folder)
    assert list(index.by_name) == [name, name + "2"]
    assert index.words(index.by_name[name].id, 0, 9) == "word3 one word3 two"


def test_a_film_keeps_its_id_and_no_id_is_given_twice(tmp_path):
    put(tmp_path, film("a"), film("b"), film("c"))
    before = {name: one.id for name, one in Index.open(tmp_path).by_name.items()}
    with IndexWriter(tmp_path, MAKER) as writer:
        writer.put(film("b", 5))
        writer.remove(["c", "never was"])
        writer.put(film("d"))
        writer.compact(0)
    after = {name: one.id for name, one in Index.open(tmp_path).by_name.items()}
    assert after["a"] == before["a"] and after["b"] == before["b"]
    assert after["d"] not in before.values() and "c" not in after


def test_words_are_found_in_films_that_are_there(tmp_path):
    put(tmp_path, film("a", 1), film("b", 2), film("gone", 2))
    put(tmp_path, film("a", 3))
    with IndexWriter(tmp_path, MAKER) as writer:
        writer.remove(["gone"])
    index = Index.open(tmp_path)
    found = index.find_words(["word3", "TWO", 'odd " AND ('])
    assert {line.text for line, _ in found} == {"word3 one", "word3 two", "word2 two"}
    assert found[0][0].text == "word3 two" and found[0][1] > found[-1][1] > 0
    assert index.find_words(["word1"]) == index.find_words([]) == []


def test_a_reader_keeps_its_state_while_films_are_replaced_removed_and_compacted(tmp_path):
    put(tmp_path, film("a", 1), film("b", 2))
    reader = Index.open(tmp_path)
    before = content(reader)
    with IndexWriter(tmp_path, MAKER) as writer:
        writer.put(film("a", 3))
        writer.remove(["b"])
        assert content(reader) == before
        assert writer.compact(0)
        assert not writer.compact(0)
    assert content(reader) == before
    new = reader.refresh()
    assert content(new) == content(IndexArrays(MAKER, [film("a", 3)]))
    assert new.refresh() is new and new.generation > reader.generation
    assert [path.name for path in tmp_path.glob("*.f16")] == ["frames-1.f16"]
    assert (tmp_path / "frames-1.f16").stat().st_size == 6 * WIDTH * 2


def test_what_was_spoken_in_replaced_films_goes_in_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "KEPT_SECONDS", -1.0)
    for value in range(6):
        put(tmp_path, film("a", value))
        with IndexWriter(tmp_path, MAKER) as writer:
            writer.compact(0)
    with sqlite3.connect(tmp_path / "index.sqlite") as tables:
        assert tables.execute("SELECT count(*) FROM lines").fetchone() == (2,)


def test_holes_are_left_until_they_are_many(tmp_path):
    with IndexWriter(tmp_path, MAKER) as writer:
        for number in range(8):
            writer.put(film(str(number)))
        writer.remove(["0"])
        assert not writer.compact()
        writer.remove(["1", "2"])
        assert writer.compact()


def test_another_maker_is_refused(tmp_path):
    put(tmp_path, film("a"))
    for change, said in {
        "model_sha256": "the model of SHA-256 abababababab…, not zz",
        "tokenizer": "the tokenizer of fingerprint cdcdcdcdcdcd…, not zz",
        "kind": "a model of kind hero, not zz",
    }.items():
        with pytest.raises(UserError, match=said):
            IndexWriter(tmp_path, dataclasses.replace(MAKER, **{change: "zz"}))
    for change, said in {"interval": "interval 1.5, not 2", "width": "width 4, not 2"}.items():
        with pytest.raises(UserError, match=said):
            IndexWriter(tmp_path, dataclasses.replace(MAKER, **{change: 2}))
    other = {"resnet": {"weights": "r.pth", "weights_sha256": "0"}}
    with pytest.raises(UserError, match="the extractors"):
        IndexWriter(tmp_path, dataclasses.replace(MAKER, extractors=other))
    # Weights may have another name; who only searches does not know the extractors.
    for extractors in ({"resnet": {"weights": "renamed.pth"}}, {}):
        IndexWriter(tmp_path, dataclasses.replace(MAKER, extractors=extractors)).close()
    assert Index.open(tmp_path).maker.extractors == {"resnet": {"weights": "renamed.pth"}}


def test_two_writers(tmp_path):
    with IndexWriter(tmp_path, MAKER) as writer:
        writer.put(film("a"))
        with pytest.raises(UserError, match=f"is being written by process {os.getpid()}"):
            IndexWriter(tmp_path, MAKER)
        writer.put(film("b"))
    put(tmp_path, film("c"))
    assert list(Index.open(tmp_path).by_name) == ["a", "b", "c"]


def test_a_full_disk_leaves_the_index_as_it_was(tmp_path, monkeypatch):
    put(tmp_path, film("a"))
    before = content(Index.open(tmp_path))
    with IndexWriter(tmp_path, MAKER) as writer:

        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patched, pytest.raises(OSError) as caught:
            patched.setattr(os, "fsync", full)
            writer.put(film("b"))
        assert "no space left on the disk of" in str(as_user_error(caught.value))
        assert content(writer.state()) == before
        assert (tmp_path / "frames-0.f16").stat().st_size == 6 * WIDTH * 2
        writer.put(film("c", 3))
    assert content(Index.open(tmp_path)) == before | content(IndexArrays(MAKER, [film("c", 3)]))


def test_a_database_that_cannot_grow_is_a_full_disk(tmp_path):
    put(tmp_path, film("a"))
    before = content(Index.open(tmp_path))
    with IndexWriter(tmp_path, MAKER) as writer:
        writer._database._run("PRAGMA max_page_count = 1")  # no page more than there are
        many = dataclasses.replace(film("b"), lines=[Line(0, 1, "x" * 5000)] * 50)
        with pytest.raises(OSError) as caught:
            writer.put(many)
        assert "no space left on the disk of" in str(as_user_error(caught.value))
    assert content(Index.open(tmp_path)) == before


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "index.sqlite").unlink(), "holds no index"),
        (lambda folder: (folder / "index.sqlite").write_bytes(b"x" * 9999), "is damaged"),
        (lambda folder: (folder / "frames-0.f16").unlink(), "frames-0.f16 is missing"),
        (lambda folder: os.truncate(folder / "frames-0.f16", 5), "was cut short"),
    ],
)
def test_damage_is_one_line(tmp_path, damage, said):
    put(tmp_path, film("a"))
    damage(tmp_path)
    with pytest.raises(UserError, match=said):
        Index.open(tmp_path)


def test_an_empty_index(tmp_path):
    put(tmp_path)
    index = Index.open(tmp_path)
    assert (index.films, index.segments, index.frames.shape) == ([], [], (0, WIDTH))
    assert index.refresh() is index


WORK = """
import sys
from pathlib import Path
from search.store import IndexWriter
from tests.search.test_search_store import MAKER, film
with IndexWriter(Path(sys.argv[1]), MAKER) as writer:
    print("begun", flush=True)
    for round in range(1000):
        for number in range(5):
            writer.put(film(str(number), round % 1000, rows=50))
        writer.remove([str(round % 5)])
        writer.compact(0.5)
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_whole_films(tmp_path):
    draw = random.Random(0)
    for _ in range(8):
        command = [sys.executable, "-c", WORK, str(tmp_path)]
        with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"begun\n"
            end = time.monotonic() + draw.uniform(0, 0.5)
            while time.monotonic() < end:
                assert_whole(Index.open(tmp_path))
            process.send_signal(signal.SIGKILL)
        assert_whole(Index.open(tmp_path))
        with IndexWriter(tmp_path, MAKER) as writer:
            assert_whole(writer.state())
            assert len(list(tmp_path.glob("frames-*"))) == 1


def assert_whole(index: Index) -> None:
    """Every film's frames and words are of one and the same round."""
    for one in index.films:
        segments = [s for s in index.segments if s.film == one.id]
        (value,) = {
            value
            for s in segments
            for value in np.unique(index.frames[s.first_row : s.first_row + s.rows]).tolist()
        }
        assert len(segments) == 2
        assert index.words(one.id, 0, 9) == f"word{value:.0f} one word{value:.0f} two"
