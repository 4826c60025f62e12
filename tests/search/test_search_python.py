"""The search engine from Python: the package, the notebook, films that are added one by one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hero import Moment, MomentSearch
from model.extractors.build import EXTRACTORS
from search.indexing import Material, encode_film
from search.records import Line, NewFilm
from search.store import Index
from tests.support import REPOSITORY
from tests.support.search_world import make_index
from tests.support.small_extractors import use_small_networks
from tests.support.videos import SRT, make_video
from utils.errors import UserError

NOTEBOOK = REPOSITORY / "docs" / "search.ipynb"
WIDTH = 32 + 288  # of the small networks


@pytest.fixture(scope="module")
def made(tmp_path_factory, world, expected) -> Path:
    """A folder with all that the notebook names."""
    folder = tmp_path_factory.mktemp("search")
    make_index(folder, world, expected, {"first": 20.0, "second": 31.7}, WIDTH)
    make_video(folder / "film.mp4", 8.2)
    (folder / "film.srt").write_text(SRT)
    (folder / "toker").symlink_to(world / "toker")
    return folder


@pytest.fixture
def place(made, tmp_path, monkeypatch) -> Path:
    """The same, with an index that a test may change, and small networks."""
    use_small_networks(lambda name, network: monkeypatch.setitem(EXTRACTORS, name, network))
    for name in ("run", "film.mp4", "film.srt", "toker"):
        (tmp_path / name).symlink_to(made / name)
    shutil.copytree(made / "index", tmp_path / "index")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    return tmp_path


@pytest.fixture
def engine(place) -> MomentSearch:
    return MomentSearch(run="run", checkpoint="1", toker="toker", random_weights=True, percentile=0)


@pytest.mark.golden
def test_the_notebook_runs(place):
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    names: dict = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert len(names["moments"]) == 5 and isinstance(names["best"], Moment)
    assert [len(answer) for answer in names["answers"]] == [2, 2]
    assert len(names["curve"]) in (14, 22)
    assert Path("moment.jpg").read_bytes().startswith(b"\xff\xd8")
    assert [film.name for film in names["memory"].films] == ["film.mp4", "another"]


@pytest.mark.golden
def test_a_film_is_added_as_index_videos_would(place, engine):
    film = engine.add("film.mp4", subtitles="film.srt")
    assert (film.name, film.file) == ("film.mp4", place / "film.mp4")
    assert film.seconds == pytest.approx(8.2, abs=0.05)
    assert engine.index.words(film.id, 0, 2) == "Yusuf lifts the tiny rope."
    moments = engine.search("Somebody waves.", 3)
    assert {moment.file for moment in moments} == {str(place / "film.mp4")}
    assert all(0 <= m.start < m.end <= film.seconds for m in moments)
    assert "resnet and slowfast features come from an untrained network" in moments[0].note
    assert engine.add("film.mp4").id == film.id  # again, without what is spoken
    assert engine.index.words(film.id, 0, 2) == ""
    assert len(engine.films) == 1


@pytest.mark.golden
def test_features_that_are_there_already(engine):
    random = np.random.default_rng(0)
    features = random.standard_normal((37, WIDTH))
    engine.add("b.mp4", features=random.standard_normal((5, WIDTH)))
    film = engine.add("a.mp4", [(3, 5, "Hello."), (0, 1, "Oh.")], features, seconds=54.9)
    assert film.seconds == 54.9 and film.file is None
    lines = [Line(0.0, 1.0, "Oh."), Line(3.0, 5.0, "Hello.")]
    values = features.astype(np.float32)
    record = NewFilm("a.mp4", 54.9, lines=lines)
    expected = encode_film(engine.scorer, Material(record, values))
    first = engine.index.segments[-1].first_row
    assert np.array_equal(engine.index.frames[first:], expected.segments[0][1])
    with pytest.raises(UserError, match="came from a database"):
        engine.thumbnail("a.mp4")


@pytest.mark.golden
def test_a_film_is_added_to_an_index_in_a_folder(place):
    engine = MomentSearch.open("index", percentile=0)
    features = np.random.default_rng(0).standard_normal((7, WIDTH))
    film = engine.add("third.mp4", features=features)
    again = Index.open("index")
    assert [each.name for each in again.films] == ["first", "second", "third.mp4"]
    assert again.by_id[film.id].name == "third.mp4"
    assert any(m.name == "third.mp4" for m in engine.search("Hi.", 100))


@pytest.mark.golden
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"film": "nowhere.mp4"}, "nowhere.mp4 does not exist"),
        ({"film": "film.srt"}, "film.srt cannot be used"),
        ({"film": "broken.mp4"}, "broken.mp4 cannot be used"),
        ({"film": "film.mp4", "subtitles": "nowhere.srt"}, "nowhere.srt does not exist"),
        ({"film": "film.mp4", "subtitles": "broken.mp4"}, "broken.mp4: .*no subtitles"),
        ({"film": "a", "features": np.zeros((0, WIDTH))}, "not \\(0, 320\\)"),
        ({"film": "a", "features": np.zeros((4, 3))}, "320 values a frame, these have 3"),
        ({"film": "a", "features": np.full((4, WIDTH), np.nan)}, "NaN"),
        ({"film": "a", "features": np.zeros((4, WIDTH)), "subtitles": [(1, 2)]}, "start, end"),
        ({"film": "a", "features": np.zeros((4, WIDTH)), "subtitles": [(2, 1, "x")]}, "no time"),
    ],
)
def test_a_film_that_cannot_be_added(place, engine, arguments, message):
    Path("broken.mp4").write_bytes(b"no film" * 100)
    with pytest.raises(UserError, match=message):
        engine.add(**arguments)
    assert engine.films == []


def test_no_model_is_named(tmp_path):
    with pytest.raises(UserError, match="name the model"):
        MomentSearch()


@pytest.mark.slow
def test_the_package_can_be_installed(tmp_path):
    """An editable wheel, as ``pip install -e .`` builds it, of a copy that only links here."""
    source, site = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    for path in REPOSITORY.iterdir():
        if path.name in ("pyproject.toml", "requirements.txt"):
            shutil.copy(path, source)
        elif (path / "__init__.py").is_file():
            (source / path.name).symlink_to(path)
    build = (
        "from setuptools.build_meta import build_editable as b; import sys; print(b(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    shutil.unpack_archive(wheel, site, "zip")
    program = "import site, sys; site.addsitedir(sys.argv[1]); from hero import MomentSearch"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}; import search; print(search.MomentSearch)", str(site)],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "search.engine.MomentSearch" in done.stdout
