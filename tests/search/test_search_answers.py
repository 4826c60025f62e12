"""search_videos.py on real films: what it prints and writes, and what it refuses."""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from scripts import export_model
from search import MomentSearch
from search.pictures import thumbnail, write_clip
from search.store import Index, IndexWriter
from search_videos import main
from tests.support import REPOSITORY
from tests.support.search_world import WORDS, make_index
from tests.support.videos import make_video
from utils.errors import UserError
from utils.files import read_json

pytestmark = pytest.mark.golden
FILMS = {"grey": 20.0, "ümlaut 'quoted'\n<b>": 31.7, "short": 13.0}
QUERIES = ["Somebody waves.", "<script>alert(1)</script>"]


@pytest.fixture(scope="module")
def made(tmp_path_factory, world, expected) -> Path:
    return make_index(tmp_path_factory.mktemp("search"), world, expected, FILMS).parent


@pytest.fixture
def index(made, tmp_path) -> Path:
    """A copy, which a test may change; run and films stay where they are."""
    return Path(shutil.copytree(made / "index", tmp_path / "index"))


def search(index: Path, *more: str, queries=QUERIES) -> dict:
    return main(["--index", str(index), "--query", *queries, *more])


def test_moments_as_json(index, tmp_path, capsys):
    answers = search(index, "--top", "4", "--json", str(tmp_path / "found.json"))
    written = read_json(tmp_path / "found.json")
    assert list(written) == QUERIES
    lengths = {str(film.file): film.seconds for film in Index.open(index).films}
    for sentence, moments in written.items():
        assert len(moments) == 4
        for record, moment in zip(moments, answers[sentence], strict=True):
            assert list(record)[:5] == ["file", "start", "end", "score", "text"]
            assert 0 <= record["start"] < record["end"] <= lengths[record["file"]]
            assert record.get("doubtful", False) is moment.doubtful
    printed = capsys.readouterr().out
    first = answers[QUERIES[0]][0]
    assert re.search(r"1\. .*  0:00:\d\d\.\d to 0:00:\d\d\.\d  score \d", printed)
    assert "\n<b>" not in printed  # a name stays on its line
    assert all(name.split("\n")[0] in printed for name in {m.name for m in answers[QUERIES[0]]})
    assert first.text in ("", WORDS[0], WORDS[1], " ".join(WORDS))


def test_nothing_found_is_said(index, capsys):
    answers = search(index, "--doubt", "100")
    assert all(moment.doubtful for moment in answers[QUERIES[0]])
    assert "nothing found" in capsys.readouterr().out
    assert not any(m.doubtful for m in search(index, "--doubt", "0")[QUERIES[0]])


def grey_levels(path: Path) -> tuple[list[float], float]:
    with av.open(str(path)) as film:
        levels = [frame.to_ndarray(format="gray").mean() for frame in film.decode(video=0)]
        return levels, film.duration / av.time_base


def test_moments_as_video_files(index, tmp_path):
    folder = tmp_path / "clips"
    answers = search(index, "--top", "2", "--clips", str(folder))
    assert len(list(folder.iterdir())) == 4
    for number, sentence in enumerate(QUERIES, start=1):
        for place, moment in enumerate(answers[sentence], start=1):
            (clip,) = folder.glob(f"{number}-{place}_*.mp4")
            levels, seconds = grey_levels(clip)
            assert seconds == pytest.approx(moment.end - moment.start, abs=0.06)
            # Films brighten evenly from start to end: the level tells the time.
            length = FILMS[moment.name]
            times = np.array([levels[0], levels[-1]]) / 255 * length
            assert times == pytest.approx([moment.start, moment.end - 0.1], abs=0.25)


def test_a_clip_has_the_sound_of_its_time(tmp_path):
    """A tone that is on from 4 to 6 seconds only."""
    rate = 16000
    time = np.arange(10 * rate) / rate
    tone = np.where((time >= 4) & (time < 6), 0.5 * np.sin(2 * np.pi * 440 * time), 0)
    with av.open(str(tmp_path / "film.mkv"), "w") as film:
        shown = film.add_stream("libx264", rate=10)
        shown.width, shown.height, shown.pix_fmt = 64, 48, "yuv420p"
        heard = film.add_stream("pcm_s16le", rate=rate, layout="mono")
        for number in range(100):
            grey = np.full((48, 64, 3), 2 * number, np.uint8)
            film.mux(shown.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
            values = (tone[1600 * number : 1600 * (number + 1)] * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(values[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts = rate, 1600 * number
            film.mux(heard.encode(frame))
        film.mux(shown.encode())
        film.mux(heard.encode())
    write_clip(tmp_path / "film.mkv", 3.5, 5.0, tmp_path / "clip.mp4")
    with av.open(str(tmp_path / "clip.mp4")) as clip:
        pieces = [frame.to_ndarray()[0] for frame in clip.decode(audio=0)]
    samples = np.concatenate(pieces)
    loud = np.flatnonzero(np.abs(samples) > 0.1) / 48000
    assert loud[0] == pytest.approx(0.5, abs=0.05)
    assert loud[-1] == pytest.approx(1.5, abs=0.05)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts", "webm"])
def test_a_thumbnail_shows_its_time(tmp_path, ending):
    codec = "libvpx" if ending == "webm" else "libx264"
    film = make_video(tmp_path / f"film.{ending}", 20, codec=codec)
    for seconds in (0.0, 7.31, 19.99, 25.0):
        picture = thumbnail(film, seconds, width=32)
        with av.open(BytesIO(picture), format="jpeg_pipe") as image:
            (frame,) = image.decode(video=0)
        assert (frame.width, frame.height) == (32, 24)
        shown = min(int(seconds * 10), 199)
        level = frame.to_ndarray(format="gray").mean()
        assert level == pytest.approx(255 * shown // 200, abs=3)


class Texts(HTMLParser):
    """What a browser would show, and the tags it would see."""

    def __init__(self):
        super().__init__()
        self.texts, self.tags, self.sources = [], set(), []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.texts.append(data)


def test_a_page_for_itself(index, tmp_path):
    answers = search(index, "--top", "6", "--html", str(tmp_path / "found.html"))
    page = Texts()
    page.feed((tmp_path / "found.html").read_text(encoding="utf-8"))
    assert QUERIES[1] in page.texts and "script" not in page.tags
    names = {moment.name for moments in answers.values() for moment in moments}
    assert "ümlaut 'quoted'\n<b>" in names and names <= set(page.texts)
    assert any(WORDS[1] in text for text in page.texts)
    assert len(page.sources) == 12
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)


def test_a_film_that_is_gone_is_named(index, tmp_path, caplog):
    with IndexWriter(index, Index.open(index).maker) as writer:
        writer.move({"short": tmp_path / "gone.mp4"})
    clips = ["--clips", str(tmp_path / "clips"), "--html", str(tmp_path / "page.html")]
    answers = search(index, "--top", "6", *clips, queries=QUERIES[:1])
    written = [clip.name for clip in (tmp_path / "clips").iterdir()]
    expected = [moment for moment in answers[QUERIES[0]] if moment.name != "short"]
    assert 0 < len(expected) == len(written) < 6
    assert "no clip: " in caplog.text and "no thumbnail: " in caplog.text
    assert "gone.mp4" in caplog.text


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--query", " "], "--query is empty"),
        (["--query", "a", "--top", "0"], "--top 0"),
        (["--query", "a", "--doubt", "101"], "--doubt 101"),
        (["--query", "a", "--nms_thd", "2"], "--nms_thd 2"),
        (["--query", "a", "--checkpoint", "nowhere.pt"], "--run_dir|nowhere.pt"),
        (["--query", "a", "--toker", "nowhere/toker"], "nowhere/toker"),
        ([], "--query"),
    ],
)
def test_a_mistake(index, more, message):
    with pytest.raises(UserError, match=message):
        main(["--index", str(index), *more])


def test_no_index_and_an_empty_one(index, tmp_path):
    with pytest.raises(UserError, match="holds no index"):
        search(tmp_path)
    with IndexWriter(index, Index.open(index).maker) as writer:
        writer.remove(list(FILMS))
    with pytest.raises(UserError, match="holds no film yet"):
        search(index)
    assert MomentSearch.open(index).search("Hi.") == []


def test_a_model_that_moved_or_changed(index, made, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(made / "run", moved)
    named = ["--run", str(moved)]
    assert search(index, *named) == search(index, *named, "--checkpoint", "1") == search(index)
    weights = moved / "ckpt" / "model_step_1.pt"
    state = torch.load(weights)
    state["video_query_linear.bias"] += 1
    torch.save(state, weights)
    with pytest.raises(UserError, match="SHA-256"):
        search(index, *named)


def test_an_exported_model(index, made, tmp_path):
    exported = tmp_path / "model"
    toker = Index.open(index).maker.opened_by["toker"]
    words = ["--run", str(made / "run"), "--checkpoint", "1", "--toker", toker]
    export_model.main([*words, "--output", str(exported)])
    engine = MomentSearch(checkpoint=exported, percentile=0)
    assert engine.scorer.maker.opened_by["run"] is None
    assert engine.scorer.maker.opened_by["toker"] == str(exported)
    # Its file is another, the embeddings are not.
    features = np.random.default_rng(0).standard_normal((9, 24))
    run = MomentSearch(run=made / "run", checkpoint="1", toker=toker, percentile=0)
    for each in (engine, run):
        each.add("film", features=features)
    assert engine.search(QUERIES) == run.search(QUERIES)
    assert MomentSearch.open(engine.index).scorer.maker == engine.scorer.maker


def test_a_newer_state_is_taken_over(index):
    engine = MomentSearch.open(index, percentile=0)
    assert not engine.refresh()
    before = engine.search(QUERIES[0], 100)
    with IndexWriter(index, engine.index.maker) as writer:
        writer.remove(["grey"])
    assert engine.search(QUERIES[0], 100) == before
    assert engine.refresh()
    after = engine.search(QUERIES[0], 100)
    assert {m.name for m in before} - {m.name for m in after} == {"grey"}
    kept = [moment.score for moment in before if moment.name != "grey"]
    assert [moment.score for moment in after] == pytest.approx(kept, rel=1e-5)


def test_the_command_itself(index):
    done = subprocess.run(
        [sys.executable, "search_videos.py", "--index", str(index), "--query", "Hi."],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" and done.stdout.startswith("Hi.\n")
