"""index_videos.py: from films to an index, again and again, whatever happens in between."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import index_videos
import search_videos
from model.extractors.build import EXTRACTORS
from search.hero_scorer import HeroScorer
from search.indexing import cut_segments
from search.store import Index, IndexWriter
from tests.support import REPOSITORY
from tests.support.index_content import content
from tests.support.index_kills import ODD_NAMES, OPTIONS, make_film
from tests.support.small_extractors import SmallResNet, SmallSlowFast, use_small_networks
from tests.support.small_image_text import save_tiny_clip
from tests.support.tvr_runs import make_run, model_options
from tests.support.videos import make_video
from utils.errors import UserError
from utils.files import read_json, write_json

WIDTH = SmallResNet.WIDTH + SmallSlowFast.WIDTH
SRT = "1\n00:00:00,500 --> 00:00:02,000\n<i>Yusuf lifts &amp; drops the tiny rope.</i>\n"
pytestmark = pytest.mark.golden


@pytest.fixture
def small(monkeypatch):
    """Small networks instead of ResNet-152 and SlowFast."""
    use_small_networks(lambda name, network: monkeypatch.setitem(EXTRACTORS, name, network))


@pytest.fixture
def model(tmp_path, world, expected) -> list[str]:
    """Options that name a run of untrained weights."""
    make_run(tmp_path / "run", model_options(world, expected), WIDTH)
    run = ["--run", str(tmp_path / "run"), "--checkpoint", "1"]
    return [*run, "--toker", str(world / "toker")]


@pytest.fixture
def index(tmp_path, small, model, capsys):
    """Index the films of ``tmp_path / "films"``; the index, and what was printed."""

    def run(*more: str) -> tuple[Index, str]:
        place = ["--videos", str(tmp_path / "films"), "--index", str(tmp_path / "index")]
        index_videos.main([*place, *model, *OPTIONS, *more])
        return Index.open(tmp_path / "index"), capsys.readouterr().out

    return run


def counts(said: str) -> tuple[int, ...]:
    """Films added, unchanged, removed, failed, of the line of the summary."""
    (line,) = [line for line in said.splitlines() if "films added" in line]
    words = line.rpartition("index: ")[2].replace("(", " ").split()
    return tuple(int(word) for word in words if word.isdigit())[:4]


def test_films_with_and_without_subtitles(tmp_path, index):
    films = tmp_path / "films"
    make_video(films / "a.mp4", 4.0)
    (films / "a.srt").write_text(SRT)
    make_video(films / "deep" / "b.mkv", 2.5)
    found, said = index()
    assert counts(said) == (2, 0, 0, 0)
    a, b = (found.by_name[name] for name in ("a.mp4", "deep/b.mkv"))
    assert (a.file, b.file) == (films / "a.mp4", films / "deep" / "b.mkv")
    assert a.seconds == pytest.approx(4.0) and b.seconds == pytest.approx(2.5, abs=0.11)
    assert [(s.film, s.rows, s.first_frame) for s in found.segments] == [
        (a.id, 3, 0),
        (b.id, 2, 0),
    ]
    assert found.words(a.id, 0, 9) == "Yusuf lifts & drops the tiny rope."
    assert found.lines(b.id) == []
    assert found.maker.untrained == ("resnet", "slowfast")
    assert not (tmp_path / "index" / "failed.json").exists()
    unrelated = read_json(tmp_path / "index" / "unrelated.json")  # the first search has no need to
    assert (unrelated["films"], unrelated["generation"]) == (2, found.generation)


def test_an_index_of_films_tells_what_one_of_databases_does(tmp_path, index, model, capsys):
    """The documented preparation, step by step, and the one command."""
    from scripts import collect_video_feature_paths, convert_subtitles, convert_videodb, prepro_sub

    films, db = tmp_path / "films", tmp_path / "video_db"
    make_video(films / "a.mp4", 4.0)
    (films / "a.srt").write_text(SRT)
    make_video(films / "b.mkv", 2.5)
    of_films, _ = index()
    features = ["--feature_dir", str(tmp_path / "index" / "features"), "--dataset", "mine"]
    collect_video_feature_paths.main([*features, "--output", str(tmp_path / "paths")])
    info = next((tmp_path / "paths").rglob("*.pkl"))
    convert_videodb.main(["--vfeat_info_file", str(info), "--output", str(db), "--dataset", "mine"])
    counts_file = ["--vid2nframe", str(db / "mine" / "id2nframe.json")]
    ann = str(tmp_path / "ann.jsonl")
    convert_subtitles.main(["--input", str(films), "--output", ann, *counts_file])
    sub_db = str(tmp_path / "sub.db")
    toker = model[-2:]
    prepro_sub.main(["--annotation", ann, "--output", sub_db, *counts_file, *toker])
    place = ["--index", str(tmp_path / "other"), "--vfeat_db", str(db / "mine")]
    index_videos.main([*place, "--sub_txt_db", sub_db, *model, "--videos", str(films)])
    of_databases = Index.open(tmp_path / "other")
    assert (of_films.frames == of_databases.frames).all()
    a = of_databases.by_name["a"]
    assert a.file == films / "a.mp4"
    assert [(line.start, line.end, line.text) for line in of_databases.lines(a.id)] == [
        (0.5, 2.0, "Yusuf lifts & drops the tiny rope.")
    ]
    assert of_databases.maker.extractors == of_films.maker.extractors
    index_videos.main([*place, "--sub_txt_db", sub_db, *model])  # where they lie is not told now
    assert Index.open(tmp_path / "other").by_name["a"].file is None


def test_a_tokenizer_without_a_token_that_the_model_reads_is_refused(tmp_path, index, world):
    shutil.copytree(world / "toker", tmp_path / "toker")
    (tmp_path / "toker" / "tokenizer_config.json").write_text('{"sep_token": null}')
    make_video(tmp_path / "films" / "a.mp4", 2.0)
    with pytest.raises(UserError, match="toker has no sep_token"):
        index("--toker", str(tmp_path / "toker"))


def test_only_what_is_new_or_changed_is_done(tmp_path, index):
    films = tmp_path / "films"
    for name in ("a", "b", "c", "d"):
        make_video(films / f"{name}.mp4", 2.0)
    (films / "d.srt").write_text(SRT)
    before, said = index()
    assert counts(said) == (4, 0, 0, 0)
    assert counts(index()[1]) == (0, 4, 0, 0)
    os.utime(films / "a.mp4")  # another date is no change
    make_video(films / "b.mp4", 3.5)
    (films / "c.srt").write_text(SRT)
    (films / "d.srt").write_text(SRT.replace("rope", "boat"))
    make_video(films / "e.mp4", 2.0)
    after, said = index()
    assert counts(said) == (4, 1, 0, 0)
    ids = {name: film.id for name, film in before.by_name.items()}
    assert {name: after.by_name[name].id for name in ids} == ids
    assert after.by_name["b.mp4"].seconds == pytest.approx(3.5)
    assert after.words(ids["c.mp4"], 0, 9) == before.words(ids["d.mp4"], 0, 9)
    assert after.words(ids["d.mp4"], 0, 9) == "Yusuf lifts & drops the tiny boat."
    (films / "c.srt").unlink()
    after, said = index()
    assert counts(said) == (1, 4, 0, 0) and after.lines(ids["c.mp4"]) == []


def test_films_that_are_gone_go(tmp_path, index):
    films = tmp_path / "films"
    for number in range(4):
        make_video(films / f"{number}.mp4", 2.0)
    index()
    (films / "0.mp4").unlink()
    (films / "1.mp4").rename(films / "renamed.mp4")
    found, said = index()
    assert counts(said) == (1, 2, 2, 0)
    assert set(found.by_name) == {"2.mp4", "3.mp4", "renamed.mp4"}
    kept = {path.stem for path in (tmp_path / "index" / "features").rglob("*.npz")}
    assert kept == {"2", "3", "renamed"}


def test_the_folder_of_films_is_moved(tmp_path, index, model):
    make_video(tmp_path / "films" / "a.mp4", 2.0)
    before, _ = index()
    (tmp_path / "films").rename(tmp_path / "moved")
    index_videos.main(
        ["--videos", str(tmp_path / "moved"), "--index", str(tmp_path / "index"), *model, *OPTIONS]
    )
    after = before.refresh()
    assert after.films[0].file == tmp_path / "moved" / "a.mp4"
    assert after.films[0].id == before.films[0].id and after.segments == before.segments


def test_most_films_gone_stops_unless_asked_for(tmp_path, index, capsys):
    films = tmp_path / "films"
    for number in range(3):
        make_video(films / f"{number}.mp4", 2.0)
    before = content(index()[0])
    for number in range(2):
        (films / f"{number}.mp4").unlink()
    with pytest.raises(UserError, match=r"2 of the 3 films of the index are gone .* --prune"):
        index()
    (films / "2.mp4").rename(tmp_path / "2.mp4")
    with pytest.raises(UserError, match="3 of the 3 films"):
        index()
    films.rmdir()
    with pytest.raises(UserError, match="is no folder; --videos must hold the films"):
        index("--prune")
    assert content(Index.open(tmp_path / "index")) == before
    films.mkdir()
    found, said = index("--prune")
    assert found.films == [] and counts(said) == (0, 0, 3, 0)


def test_films_in_a_folder_that_cannot_be_read_stay(tmp_path, index, monkeypatch):
    for number in range(3):
        make_video(tmp_path / "films" / "closed" / f"{number}.mp4", 2.0)
    make_video(tmp_path / "films" / "open.mp4", 2.0)
    before, _ = index()
    list_all = os.listdir

    def listdir(folder: Path) -> list[str]:
        if Path(folder).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied")
        return list_all(folder)

    monkeypatch.setattr(os, "listdir", listdir)
    after, said = index()
    assert after.films == before.films and "the folder cannot be read" in said


def test_bad_files_are_reported_and_never_the_end(tmp_path, index):
    films = tmp_path / "films"
    make_video(films / "good.mp4", 2.0)
    make_video(films / "worse.mp4", 2.0)
    index()
    (films / "worse.mp4").write_bytes(b"no film" * 999)
    (films / "empty.mp4").touch()
    make_video(films / "one" / "twice.mp4", 2.0)
    make_video(films / "two" / "twice.mp4", 1.0)
    (films / "good.srt").write_bytes(b"\0" * 50)
    found, said = index()
    assert set(found.by_name) == {"good.mp4"}
    report = read_json(tmp_path / "index" / "failed.json")
    names = {str(Path(path).relative_to(films)): entry["used"] for path, entry in report.items()}
    failed = {"worse.mp4", "empty.mp4", "one/twice.mp4", "two/twice.mp4", "good.srt"}
    assert names == dict.fromkeys(failed, False)
    assert "would all be video 'twice'" in said and "empty.mp4" in said
    (films / "two" / "twice.mp4").unlink()
    (films / "good.srt").unlink()
    found, _ = index()
    assert set(found.by_name) == {"good.mp4", "one/twice.mp4"}
    assert len(read_json(tmp_path / "index" / "failed.json")) == 2


def test_no_film_can_be_used(tmp_path, index):
    (tmp_path / "films").mkdir()
    with pytest.raises(UserError, match="holds no films"):
        index()
    assert not (tmp_path / "index").exists()
    (tmp_path / "films" / "a.mp4").write_bytes(b"no film")
    with pytest.raises(UserError, match=r"no film of .* can be used; see failed.json"):
        index()


def test_names_are_what_files_are_called(tmp_path, index):
    import random

    for number in range(len(ODD_NAMES)):
        make_film(tmp_path / "films", number, random.Random(number))
    found, _ = index()
    assert set(found.by_name) == {f"{name}.mp4" for name in ODD_NAMES}
    assert all(film.file.is_file() for film in found.films)
    assert counts(index()[1]) == (0, len(ODD_NAMES), 0, 0)


def test_the_language_of_subtitles(tmp_path, index):
    make_video(tmp_path / "films" / "a.mp4", 2.0)
    (tmp_path / "films" / "a.de.srt").write_text(SRT)
    found, said = index()
    assert found.lines(found.films[0].id) == [] and "a.de.srt" in said
    found, said = index("--language", "de")
    assert counts(said) == (1, 0, 0, 0) and len(found.lines(found.films[0].id)) == 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--clip", "x"], "leave out --run and --checkpoint"),
        (["--interval", "2"], "HERO's is that of its run"),
        (["--sub_txt_db", "x"], "goes with --vfeat_db"),
        (["--vfeat_db", "nowhere"], "nowhere"),
        (["--language", "qqq"], "is no language"),
        (["--models", "resnet"], "reads features of 320 values a frame, these have 32"),
        (["--toker", "nowhere"], "nowhere"),
        (["--checkpoint", "7"], "7"),
        (["--index", ""], "is empty"),
        (["--device", "cuda:9"], "cannot be used"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, index, more, said):
    make_video(tmp_path / "films" / "a.mp4", 2.0)
    with pytest.raises(UserError, match=said):
        index(*more)
    assert not (tmp_path / "index").exists() or more == ["--language", "qqq"]


def test_another_model_or_interval_is_refused(tmp_path, index, model, world, expected):
    make_video(tmp_path / "films" / "a.mp4", 2.0)
    before = content(index()[0])
    other = make_run(tmp_path / "other", model_options(world, expected), WIDTH)
    hps = other / "log" / "hps.json"
    write_json(hps, json.loads(hps.read_text()) | {"vfeat_interval": 2.0})
    with pytest.raises(UserError, match=r"was made with the interval 1.5, not 2"):
        index("--run", str(other))
    import torch

    weights = torch.load(tmp_path / "run" / "ckpt" / "model_step_1.pt")
    first = next(iter(weights))
    torch.save(weights | {first: weights[first] + 1}, tmp_path / "run/ckpt/model_step_1.pt")
    with pytest.raises(UserError, match="was made with the model of SHA-256"):
        index()
    assert content(Index.open(tmp_path / "index")) == before


def test_a_second_writer_is_told_to_wait(tmp_path, index):
    make_video(tmp_path / "films" / "a.mp4", 2.0)
    found, _ = index()
    with (
        IndexWriter(tmp_path / "index", found.maker),
        pytest.raises(UserError, match=f"is being written by process {os.getpid()}"),
    ):
        index()


@pytest.mark.parametrize(
    ("frames", "window", "overlap", "expected"),
    [
        (1, 10, 4, [(0, 1)]),
        (10, 10, 4, [(0, 10)]),
        (11, 10, 4, [(0, 10), (1, 11)]),
        (16, 10, 4, [(0, 10), (6, 16)]),
        (23, 10, 4, [(0, 10), (6, 16), (12, 22), (13, 23)]),
    ],
)
def test_windows_of_a_long_film(frames, window, overlap, expected):
    assert cut_segments(frames, window, overlap) == expected


def test_a_long_film_is_encoded_window_by_window(tmp_path, index, model, world, expected):
    options = model_options(world, expected) | {"max_clip_len": 4, "max_pred_l": 2}
    shutil.rmtree(tmp_path / "run")
    make_run(tmp_path / "run", options, WIDTH)
    make_video(tmp_path / "films" / "long.mp4", 15.0)
    times = "00:00:07,000 --> 00:00:08,000"
    (tmp_path / "films" / "long.srt").write_text(f"1\n{times}\nIn the middle.\n")
    found, _ = index()
    assert [(s.rows, s.first_frame) for s in found.segments] == [(4, 0), (4, 2), (4, 4), (4, 6)]
    scorer = HeroScorer.open(*(model[1], "1", model[-1]))
    features = np.concatenate(
        [
            np.load(tmp_path / "index" / "features" / f"{name}_features" / "videos" / "long.npz")[
                "features"
            ]
            for name in ("resnet", "slowfast")
        ],
        axis=1,
    )
    (alone,) = scorer.encode_segments([(features[6:10], [])])
    assert (found.frames[12:] == alone).all()
    from search.records import Line

    (spoken,) = scorer.encode_segments([(features[4:8], [Line(1.0, 2.0, "In the middle.")])])
    assert (found.frames[8:12] == spoken).all()
    (silent,) = scorer.encode_segments([(features[4:8], [])])
    assert not (silent == spoken).all()


def test_damaged_records_of_databases_are_reported(tmp_path, model, capsys):
    from data.stores.lmdb_io import FeatureDbWriter

    rows = np.random.default_rng(0).normal(size=(5, WIDTH)).astype(np.float32)
    with FeatureDbWriter(tmp_path / "db") as db:
        db.put("good", rows)
        db.put("bad", np.full_like(rows, np.nan))
    place = ["--index", str(tmp_path / "index"), "--vfeat_db", str(tmp_path / "db")]
    index_videos.main([*place, *model])
    found = Index.open(tmp_path / "index")
    assert list(found.by_name) == ["good"] and found.films[0].seconds == 7.5
    assert list(read_json(tmp_path / "index" / "failed.json")) == ["bad"]
    capsys.readouterr()
    index_videos.main([*place, *model])
    assert counts(capsys.readouterr().out) == (0, 1, 0, 1)
    with FeatureDbWriter(tmp_path / "db", force=True) as db:
        db.put("good", rows)
        db.put("bad", rows)
    index_videos.main([*place, *model])
    assert counts(capsys.readouterr().out) == (1, 1, 0, 0)
    with FeatureDbWriter(tmp_path / "db", force=True, recount=True) as db:
        db.put("good", rows[::-1])
        db.put("bad", rows)
    index_videos.main([*place, *model])
    assert counts(capsys.readouterr().out) == (1, 1, 0, 0)


def test_from_films_to_moments(tmp_path, index):
    make_video(tmp_path / "films" / "a.mp4", 6.0)
    (tmp_path / "films" / "a.srt").write_text(SRT)
    index()
    place = ["--index", str(tmp_path / "index"), "--top", "2"]
    (moments,) = search_videos.main([*place, "--query", "Yusuf lifts the rope."]).values()
    assert moments[0].file == str(tmp_path / "films" / "a.mp4")
    assert 0 <= moments[0].start < moments[0].end <= 6.0
    assert "resnet and slowfast features come from an untrained network" in moments[0].note


def test_an_image_text_model(tmp_path, capsys):
    clip = save_tiny_clip(tmp_path / "clip")
    make_video(tmp_path / "films" / "a.mp4", 6.0, size=(96, 64))
    (tmp_path / "films" / "a.srt").write_text(SRT)
    place = ["--videos", str(tmp_path / "films"), "--index", str(tmp_path / "index")]
    arguments = [*place, "--clip", str(clip), "--workers", "1", "--device", "cpu"]
    index_videos.main([*arguments, "--interval", "0.5"])
    found = Index.open(tmp_path / "index")
    assert found.maker.kind == "clip" and found.maker.interval == 0.5
    assert found.frames.shape == (12, 12)
    assert np.linalg.norm(found.frames.astype(float), axis=1) == pytest.approx(1, abs=1e-3)
    assert found.words(found.films[0].id, 0, 9) == "Yusuf lifts & drops the tiny rope."
    with pytest.raises(UserError, match=r"was made with the interval 0.5, not 1.5"):
        index_videos.main(arguments)
    (moments,) = search_videos.main([*place[2:], "--query", "a red disc"]).values()
    assert moments and 0 <= moments[0].start < moments[0].end <= 6.0


@pytest.mark.slow
def test_kills_at_random_moments(tmp_path, model):
    command = [
        sys.executable,
        "-m",
        "tests.support.index_kills",
        str(tmp_path / "work"),
        "--kills",
        "10",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run(
        [*command, *model],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "'killed': 10" in ended.stdout
