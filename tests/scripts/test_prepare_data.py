"""Getting data as users do: from servers, folders and raw files, through kills and mistakes."""

import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from data.prepare.mirror import SourceGoneError
from data.stores.lmdb_io import FeatureDb, TextDb
from scripts import prepare_data
from tests.support import REPOSITORY
from tests.support.containers import with_fake_docker
from tests.support.databases import assert_same_records
from tests.support.flaky_server import serving
from tests.support.preparation import prepare, run_script
from tests.support.small_mirror import paths_of, write_checksums, write_mirror
from utils.errors import UserError
from utils.files import read_json, write_json, write_jsonl

CONFIG = REPOSITORY / "config"
DOWNLOADS = {
    "tvr": ["train-tvr-8gpu", "train-tvr-1gpu"],
    "tvqa": ["train-tvqa-8gpu"],
    "tvc": ["train-tvc-8gpu"],
    "violin": ["train-violin-8gpu"],
    "didemo": ["train-didemo_video_sub-8gpu", "train-didemo_video_only-4gpu"],
    "msrvtt": ["train-msrvtt_video_sub-4gpu", "train-msrvtt_video_only-4gpu"],
    "how2r": ["train-how2r-8gpu"],
    "how2qa": ["train-how2qa-8gpu"],
    "tv_pretrain": ["pretrain-tv-16gpu"],
}
TVR = [
    *("finetune/tvr_default", "pretrained/hero-tv-ht100.pt", "txt_db/tv_subtitles.db"),
    *("txt_db/tvr_test_public.db", "txt_db/tvr_train.db", "txt_db/tvr_val.db", "video_db/tv"),
]


@pytest.fixture(scope="module")
def mirrors(tmp_path_factory) -> tuple[Path, Path]:
    """A mirror of archives, and one where they are unpacked."""
    return write_mirror(tmp_path_factory.mktemp("mirrors"))


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return tmp_path / "storage"


@pytest.fixture
def server(mirrors, monkeypatch):
    """The mirror of archives on a server, which ``HERO_BLOB_URL`` names."""
    with serving(mirrors[0]) as running:
        monkeypatch.setenv("HERO_BLOB_URL", running.address)
        yield running


@pytest.fixture
def own_mirror(mirrors, tmp_path, monkeypatch) -> Path:
    """A copy of the mirror of archives, for tests that change it."""
    monkeypatch.setenv("HERO_BLOB_URL", str(tmp_path / "mirror"))
    return Path(shutil.copytree(mirrors[0], tmp_path / "mirror"))


def results(storage: Path) -> list[str]:
    """What lies in the four folders."""
    return sorted(
        path.relative_to(storage).as_posix()
        for path in storage.glob("*/*")
        if not path.parent.name.startswith(".")
    )


def downloads(storage: Path) -> list[Path]:
    return list(storage.glob(".downloads/**/*"))


# --------------------------------------------------------------------------------------------------
# What there is, and what recipes want
# --------------------------------------------------------------------------------------------------


def test_every_recipe_has_a_data_set():
    recipes = {path.stem for path in CONFIG.glob("*train-*.json") if "debug" not in path.stem}
    assert recipes == {name for names in DOWNLOADS.values() for name in names}


@pytest.mark.parametrize("unpacked", [False, True])
@pytest.mark.parametrize("dataset", DOWNLOADS)
def test_a_download_brings_all_that_its_recipes_read(
    mirrors, storage, monkeypatch, dataset, unpacked
):
    monkeypatch.setenv("HERO_BLOB_URL", str(mirrors[unpacked]))
    prepare(storage, dataset=dataset)
    for name in DOWNLOADS[dataset]:
        recipe = CONFIG / f"{name}.json"
        wanted = paths_of(recipe)
        assert len(wanted) >= 5
        for path in wanted:
            assert (storage / path).exists(), path
            if path.endswith(".db"):
                parts = ("cap.db", "clip.db") if path.startswith("txt_db/tvc") else (".",)
                assert all(len(TextDb(storage / path / part)) == 1 for part in parts)
        options = read_json(recipe)
        options = {**options, **options["targets"][0]} if "targets" in options else options
        folder = storage / "video_db" / options["vfeat_db"].rpartition("/")[2]
        features = FeatureDb(
            folder, interval=options["vfeat_interval"], compressed=options["compressed_db"]
        )
        assert features["v"].shape == (2, 3)
    assert not downloads(storage)
    if dataset == "tvc":
        assert (storage / "txt_db" / "tvc_test_public_release.jsonl").exists()


def test_recognised_speech_is_an_option(mirrors, storage, monkeypatch):
    monkeypatch.setenv("HERO_BLOB_URL", str(mirrors[0]))
    prepare(storage, "--asr", dataset="didemo")
    assert (storage / "asr" / "didemo_asr.jsonl").exists()


@pytest.mark.parametrize(
    "script",
    sorted(
        path.name
        for path in (REPOSITORY / "scripts").glob("download_*.sh")
        if path.name != "download_value.sh"  # tests/scripts/test_value_preparation.py
    ),
)
def test_download_scripts(server, storage, script):
    dataset = script.removeprefix("download_").removesuffix(".sh")
    done = run_script(script, storage, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert not storage.exists()
    wanted = ["pretrained/hero-tv-ht100.pt"]
    if dataset != "pretrained":
        wanted = [path for name in DOWNLOADS[dataset] for path in paths_of(CONFIG / f"{name}.json")]
    for path in wanted:
        assert any(line.startswith(f"{path} ") for line in done.stdout.splitlines()), path
    assert run_script(script, "--help").stdout.startswith("Download ")
    for arguments in ([], ["--jobs", "2"]):
        done = run_script(script, *arguments)
        assert done.returncode == 2 and f"usage: bash scripts/{script} STORAGE" in done.stderr


def test_the_folder_structure_of_tvr(server, storage):
    """As shown in the user guide; a second run asks the server for nothing."""
    done = run_script("download_tvr.sh", storage, "--jobs", "3")
    assert done.returncode == 0, done.stderr
    assert results(storage) == TVR
    asked = len(server.requests)
    done = run_script("download_tvr.sh", storage)
    assert done.returncode == 0 and done.stdout.startswith("nothing to do: all is in")
    assert len(server.requests) == asked and not downloads(storage)


def test_only_the_weights(server, storage):
    prepare(storage, dataset="pretrained")
    assert results(storage) == ["pretrained/hero-tv-ht100.pt"]
    folders = {path.name for path in storage.iterdir() if not path.name.startswith(".")}
    assert folders == {"txt_db", "video_db", "pretrained", "finetune"}  # the container wants all


def mount(folder: Path, destination: str) -> str:
    """What an engine is told of a folder that cannot be written."""
    return f"type=bind,source={folder},destination={destination},readonly"


def test_a_download_in_the_container(tmp_path):
    environment = with_fake_docker(tmp_path)
    folder = tmp_path / "mirror"
    folder.mkdir()
    for address, options in (
        (str(folder), {mount(folder, "/mirror"), "HERO_BLOB_URL=/mirror"}),
        ("http://mirror.example", {"HERO_BLOB_URL=http://mirror.example"}),
    ):
        environment["HERO_BLOB_URL"] = address
        done = run_script("download_tvr.sh", tmp_path / "data", "--jobs", "2", **environment)
        words = done.stdout.splitlines()
        data = mount(tmp_path / "data", "/data").removesuffix(",readonly")
        assert {data, mount(REPOSITORY, "/src"), *options} < set(words)
        inside = ["some:image", "bash", "/src/scripts/download_tvr.sh", "/data", "--jobs", "2"]
        assert words[-len(inside) :] == inside


# --------------------------------------------------------------------------------------------------
# Good files stay, bad ones do not come
# --------------------------------------------------------------------------------------------------


def test_what_is_there_is_not_downloaded_again(own_mirror, storage, capsys):
    prepare(storage)
    kept = storage / "txt_db" / "tvr_val.db" / "data.mdb"
    before = (kept.stat().st_ino, kept.stat().st_mtime_ns)
    shutil.rmtree(storage / "txt_db" / "tvr_train.db")
    truncated = storage / "txt_db" / "tvr_test_public.db" / "data.mdb"
    truncated.write_bytes(truncated.read_bytes()[:5000])
    capsys.readouterr()
    prepare(storage, "--dry-run")
    printed = capsys.readouterr().out
    assert "tvr_train.db is missing" in printed and "is cut short" in printed
    assert printed.count(" run ") == 2 and printed.count(" skip ") == len(TVR) - 2
    prepare(storage)
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == before and results(storage) == TVR
    prepare(storage, "--force", "txt_db/tvr_val.db")
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) != before


def test_a_folder_that_is_no_database_is_never_replaced(own_mirror, storage, capsys):
    mine = storage / "finetune" / "tvr_default" / "log" / "hps.json"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(UserError, match="1 of 7 steps failed: finetune/tvr_default"):
        prepare(storage)
    assert "is not finetune/tvr_default; move it away, run again" in capsys.readouterr().err
    assert mine.read_text() == "mine" and results(storage) == TVR


def test_a_tampered_file(own_mirror, server, storage, capsys, monkeypatch):
    archive = next((own_mirror / "txt_db").glob("tvr_val.db.*"))
    archive.write_bytes(archive.read_bytes().replace(b"tvr", b"tvx"))
    server.folder = own_mirror
    for address in (server.address, str(own_mirror)):
        monkeypatch.setenv("HERO_BLOB_URL", address)
        with pytest.raises(UserError, match=r"steps failed: .*txt_db/tvr_val\.db"):
            prepare(storage)
        assert f"{archive.name} has the SHA-256" in capsys.readouterr().err
        assert not (storage / "txt_db" / "tvr_val.db").exists()
        assert (storage / "txt_db" / "tvr_train.db").exists() and not downloads(storage)


@pytest.mark.parametrize("content", ["cut", "html", "another"])
def test_a_useless_file_without_a_checksum(own_mirror, server, storage, capsys, content):
    (own_mirror / "SHA256SUMS").unlink()
    server.folder = own_mirror
    archive = next((own_mirror / "txt_db").glob("tvr_val.db.*"))
    whole = archive.read_bytes()
    other = next((own_mirror / "video_db").glob("tv.*")).read_bytes()
    bad = {"cut": whole[: len(whole) // 3], "html": b"<html>Sorry</html>", "another": other}
    archive.write_bytes(bad[content])
    with pytest.raises(UserError, match=r"failed: txt_db/tvr_val\.db"):
        prepare(storage)
    assert "txt_db/tvr_val.db of http" in capsys.readouterr().err
    assert not (storage / "txt_db" / "tvr_val.db").exists() and not downloads(storage)
    archive.write_bytes(whole)
    prepare(storage)
    assert results(storage) == TVR


@pytest.mark.parametrize("content", [b"", b"<html>Sorry</html>"])
def test_weights_that_are_none(own_mirror, storage, capsys, content):
    (own_mirror / "SHA256SUMS").unlink()
    (own_mirror / "pretrained" / "hero-tv-ht100.pt").write_bytes(content)
    with pytest.raises(UserError, match="1 of 1 steps failed"):
        prepare(storage, dataset="pretrained")
    assert "hero-tv-ht100.pt cannot be read" in capsys.readouterr().err
    assert not list(storage.glob("pretrained/*"))


def test_a_mirror_that_lacks_a_file(own_mirror, server, storage, capsys):
    (own_mirror / "pretrained" / "hero-tv-ht100.pt").unlink()
    write_checksums(own_mirror)
    server.folder = own_mirror
    with pytest.raises(UserError, match=r"1 of 14 steps failed: .*hero-tv-ht100.pt; .*again"):
        prepare(storage)
    assert "has no pretrained/hero-tv-ht100.pt; see docs/DATA.md" in capsys.readouterr().err
    assert len(results(storage)) == len(TVR) - 1


def one_line(done: subprocess.CompletedProcess) -> str:
    """The only line of the error output."""
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: ")
    return done.stderr


def test_a_source_that_is_gone_is_one_line(tmp_path, storage):
    (tmp_path / "empty").mkdir()
    with serving(tmp_path / "empty") as server:
        addresses = [server.address, str(tmp_path / "no"), str(tmp_path / "empty")]
        for address in addresses:
            line = one_line(run_script("download_tvr.sh", storage, HERO_BLOB_URL=address))
            assert address in line and "HERO_BLOB_URL" in line and "local folder" in line
            assert "txt_db/<name>.db.tar" in line and "video_db/<dataset>.tar" in line
    assert not results(storage)


def test_a_source_that_does_not_answer(storage, monkeypatch, capsys):
    monkeypatch.setenv("HERO_BLOB_URL", "http://127.0.0.1:9/hero")
    waits = []
    monkeypatch.setattr("data.prepare.download.time.sleep", waits.append)
    with pytest.raises(SourceGoneError, match=r"available from http://127.0.0.1:9/hero .*refused"):
        prepare(storage, "--jobs", "3")
    assert waits == [0.5, 1, 2, 4]  # once for all


def test_what_was_never_published(storage, monkeypatch):
    monkeypatch.delenv("HERO_BLOB_URL", raising=False)
    with pytest.raises(UserError, match=r"how2r are not among .* files: .*--from raw, or set HERO"):
        prepare(storage, dataset="how2r")


# --------------------------------------------------------------------------------------------------
# Kills
# --------------------------------------------------------------------------------------------------


def start(storage: Path, *arguments: str | Path) -> subprocess.Popen:
    """Start the script as users do."""
    command = [sys.executable, "scripts/prepare_data.py", "--storage", storage, *arguments]
    return subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def kill_when(
    process: subprocess.Popen, ready: Callable[[], bool], number: int = signal.SIGKILL
) -> str:
    """Send a signal as soon as ``ready``; it must not have ended before. Returns what it said."""
    deadline = time.monotonic() + 60
    while not ready():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.005)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    killed = number == signal.SIGKILL
    assert process.returncode == (-number if killed else 128 + number), output
    return output


def test_a_killed_download_is_gone_on_from(own_mirror, storage, monkeypatch):
    weights = own_mirror / "pretrained" / "hero-tv-ht100.pt"
    torch.save({"weight": torch.rand(1_000_000)}, weights)
    write_checksums(own_mirror)
    part = storage / ".downloads" / "pretrained" / "hero-tv-ht100.pt.part"
    with serving(own_mirror) as server:
        monkeypatch.setenv("HERO_BLOB_URL", server.address)
        server.faults.pause = 0.02
        for least in (1_000_000, 2_500_000):
            process = start(storage, "--dataset", "pretrained")
            kill_when(process, lambda: part.exists() and part.stat().st_size >= least)  # noqa: B023
            assert not results(storage)
        server.faults.pause = 0
        output, _ = start(storage, "--dataset", "pretrained").communicate(timeout=60)
        spans = [span for span, _ in server.asked("pretrained/hero-tv-ht100.pt")]
    assert (storage / "pretrained" / weights.name).read_bytes() == weights.read_bytes(), output
    assert spans[0] is None
    starts = [int(span.removeprefix("bytes=").rstrip("-")) for span in spans[1:]]
    assert len(starts) == 2 and 1_000_000 <= starts[0] < starts[1] and starts[1] >= 2_500_000
    assert not downloads(storage)


def test_a_killed_unpacking_is_done_again(own_mirror, storage, server):
    """Without another download: the archive has come already."""
    unpacking = storage / "txt_db" / ".tvr_val.db.building" / ".unpacked"
    folder = storage.parent / "big"
    source = next((own_mirror / "txt_db").glob("tvr_val.db.*"))
    shutil.unpack_archive(source, folder / "x")
    inner = next((folder / "x").rglob("data.mdb")).parent
    (inner / "zz_filler").write_bytes(bytes(60_000_000))  # a moment to be killed in
    source.unlink()
    shutil.make_archive(str(own_mirror / "txt_db" / "tvr_val.db"), "tar", inner)
    write_checksums(own_mirror)
    server.folder = own_mirror
    arguments = ("--dataset", "tvr", "--only", "txt_db/tvr_val.db")
    kill_when(start(storage, *arguments), lambda: unpacking.exists() and any(unpacking.iterdir()))
    assert not (storage / "txt_db" / "tvr_val.db").exists()
    output, _ = start(storage, *arguments).communicate(timeout=60)
    assert len(TextDb(storage / "txt_db" / "tvr_val.db")) == 1, output
    assert len(server.asked("txt_db/tvr_val.db.tar")) == 1
    hidden = {path.name for path in (storage / "txt_db").iterdir()}
    assert hidden == {"tvr_val.db"} and not downloads(storage)


# --------------------------------------------------------------------------------------------------
# From raw files
# --------------------------------------------------------------------------------------------------


@pytest.fixture
def raw(world: Path, tmp_path: Path) -> list[str]:
    """Options for the raw files of the recorded world, copied."""
    for name in ("ann", "feat"):
        shutil.copytree(world / name, tmp_path / name)
    (tmp_path / "ann" / "tv_vid2nframe.json").unlink()  # features are made: there is no need of it
    folders = ("--ann_dir", str(tmp_path / "ann"), "--feature_dir", str(tmp_path / "feat"))
    return ["--from", "raw", *folders, "--toker", str(world / "toker"), "--workers", "1"]


@pytest.mark.golden
@pytest.mark.slow
def test_raw_files_become_the_recorded_databases(world, expected, storage, raw, capsys):
    names = ["tvr_train", "tvr_val", "tvr_test_public", "tv_subtitles"]
    prepare(storage, *raw, "--jobs", "2")
    token_ids = read_json(expected / "token_ids.json")
    for name in (f"{name}.db" for name in names):
        recorded = world / "txt_db" / name
        assert_same_records(storage / "txt_db" / name, recorded, token_ids[name])
    made, recorded = (FeatureDb(root / "video_db" / "tv") for root in (storage, world))
    assert made.id2nframe == recorded.id2nframe
    capsys.readouterr()
    prepare(storage, *raw)
    assert capsys.readouterr().out.startswith("nothing to do")
    # Touched inputs: only what is made from them is made again.
    annotation = Path(raw[3]) / "tvr_val.jsonl"
    lines = annotation.read_text().splitlines()
    annotation.write_text("\n".join(lines[1:]))
    prepare(storage, *raw, "--dry-run")
    assert [
        line.split()[0] for line in capsys.readouterr().out.splitlines() if " run " in line
    ] == ["txt_db/tvr_val.db"]
    prepare(storage, *raw)
    assert len(TextDb(storage / "txt_db" / "tvr_val.db")) == len(lines) - 1
    # Another tokenizer is no reason to replace a database without being told to.
    other = Path(shutil.copytree(raw[7], storage.parent / "toker"))
    with pytest.raises(UserError, match="failed"):
        prepare(storage, *raw[:6], "--toker", str(other), "--only", "txt_db/tvr_val.db")
    assert "pass --force txt_db/tvr_val.db to build it again" in capsys.readouterr().err
    prepare(storage, *raw[:6], "--toker", str(other), "--only", "*val.db", "--force", "*val.db")
    assert TextDb(storage / "txt_db" / "tvr_val.db").meta["toker"] == str(other)


@pytest.mark.golden
@pytest.mark.slow
def test_raw_pretraining_leaves_out_what_is_validated_on(world, storage, raw):
    prepare(storage, *raw, dataset="tv_pretrain")
    lists = [
        set(read_json(storage / "txt_db" / "pretrain_splits" / f"tv_{split}.json"))
        for split in ("train", "val")
    ]
    validated = {
        vid
        for name in ("tvr_val", "tvqa_val")
        for vid in TextDb(world / "txt_db" / f"{name}.db").side("query2video.json").values()
    }
    assert lists[0] and lists[1] and not lists[0] & lists[1]
    assert not (lists[0] | lists[1]) & validated


def test_the_graph_of_raw_files(world, storage, raw, capsys):
    prepare(storage, *raw, "--graph")
    lines = capsys.readouterr().out.splitlines()
    pairs = [line.strip().partition(": ")[::2] for line in lines]
    assert {name for name, _ in pairs} == {
        *("txt_db/tvr_train.db", "txt_db/tvr_val.db", "txt_db/tvr_test_public.db"),
        *("txt_db/tv_subtitles.db", "video_db/tv", "video_db/tv/video_feat_info.pkl"),
    }
    assert "← video_db/tv" in dict(pairs)["txt_db/tv_subtitles.db"]
    prepare(storage, *raw, "--graph", "dot")
    assert '"video_db/tv" -> "txt_db/tv_subtitles.db";' in capsys.readouterr().out
    assert not storage.exists()


def test_features_of_each_corpus(world, storage, raw, tmp_path):
    """As its recipes read them."""
    for dataset, options in (("violin", {"compressed": True}), ("msrvtt", {"interval": 2})):
        prepare(storage, *raw, "--only", f"video_db/{dataset}", dataset=dataset)
        assert len(FeatureDb(storage / "video_db" / dataset, **options)) == 10


def test_what_is_missing_of_raw_files(world, storage, raw, capsys):
    ann = Path(raw[3])
    (ann / "tvr_train.jsonl").unlink()
    without_features = [*raw[:4], *raw[6:], "--only", "txt_db/*"]
    with pytest.raises(UserError, match=r"needs .*id2nframe\.json, which does not exist: give"):
        prepare(storage, *without_features)
    (ann / "tv_subtitles.jsonl").unlink()
    prepare(storage, *raw[:4], *raw[6:])
    printed = capsys.readouterr().out
    assert "passed over: txt_db/tvr_train.db, which has no annotation in" in printed
    assert "passed over: txt_db/tv_subtitles.db" in printed
    for path in ann.iterdir():
        path.unlink()
    with pytest.raises(UserError, match="has none of the files that --help lists"):
        prepare(storage, *raw[:4])


def test_a_bad_line_of_a_raw_file_is_named(world, storage, raw, capsys):
    (Path(raw[3]) / "tvr_val.jsonl").write_text("{\n")
    with pytest.raises(UserError, match=r"1 of 3 steps failed: txt_db/tvr_val\.db; fix"):
        prepare(storage, *raw, "--only", "txt_db/tvr_*")
    assert "failed: txt_db/tvr_val.db: " in (errors := capsys.readouterr().err)
    assert "tvr_val.jsonl:1:" in errors
    assert len(TextDb(storage / "txt_db" / "tvr_train.db")) > 0


def test_a_killed_step_is_done_again(world, storage, raw):
    """Its processes end with it, and another run builds the database.

    Nothing half-built stays where it is asked to end.
    """
    lines = ({"desc": "A man walks. " * 30, "desc_id": number} for number in range(3_000))
    write_jsonl(Path(raw[3]) / "tvr_train.jsonl", lines)
    (Path(raw[3]) / "vid2dur_idx.json").unlink()
    arguments = ["--dataset", "tvr", *raw[:-1], "2", "--only", "txt_db/tvr_train.db"]
    building = storage / "txt_db" / ".tvr_train.db.building"
    for number in (signal.SIGINT, signal.SIGTERM):
        said = kill_when(start(storage, *arguments), building.exists, number)
        assert said.endswith(f"\nstopped by {number.name}\n") and "Traceback" not in said
        assert not list((storage / "txt_db").iterdir())
    kill_when(start(storage, *arguments), building.exists)
    assert not (storage / "txt_db" / "tvr_train.db").exists()
    output, _ = start(storage, *arguments).communicate(timeout=120)
    assert len(TextDb(storage / "txt_db" / "tvr_train.db")) == 3_000, output
    assert [path.name for path in (storage / "txt_db").iterdir()] == ["tvr_train.db"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: --dataset"),
        (["--dataset", "tvx"], "invalid choice: 'tvx'"),
        (["--dataset", "tvr"], "--storage is missing"),
        (["--dataset", "tvr", "--storage", "s", "--jobs", "0"], "--jobs must be 1 or more"),
        (["--dataset", "tvr", "--storage", "s", "--ann_dir", "a"], "--ann_dir needs --from raw"),
        (["--dataset", "tvr", "--from", "raw"], "--storage is missing"),
        (["--dataset", "tvr", "--storage", "s", "--from", "raw"], "--ann_dir must hold"),
        (["--dataset", "pretrained", "--storage", "s", "--from", "raw"], "are downloaded, not"),
    ],
)
def test_mistakes_on_the_command_line(arguments, message):
    with pytest.raises(UserError, match=message):
        prepare_data.main(arguments)


def test_data_sets_of_two_corpora_have_no_common_features(world, storage, raw):
    with pytest.raises(UserError, match=r"must have a folder for each, and .*tv does not exist"):
        prepare_data.main(["--dataset", "tvr", "violin", "--storage", str(storage), *raw])


@pytest.fixture
def shards(raw, tmp_path) -> list[str]:
    """Options for features in a folder for each corpus, one in shards (of which there are many)."""
    files = tmp_path / "corpora"
    files.mkdir()
    (tmp_path / "feat").rename(files / "tv")
    for name in ("ht_0", "ht_2", "ht_10", "ht_old"):
        (files / name).mkdir()
    write_jsonl(tmp_path / "ann" / "ht_subtitles.jsonl", [{"vid_name": "x", "sub": []}])
    return [*raw[:5], str(files), *raw[6:]]


def test_corpora_and_shards_in_one_call(storage, shards, capsys):
    names = ["--dataset", "tv_pretrain", "ht_pretrain", "--storage", str(storage)]
    prepare_data.main([*names, *shards, "--graph"])
    lines = dict(line.strip().partition(": ")[::2] for line in capsys.readouterr().out.splitlines())
    databases = {name for name in lines if name.startswith("video_db/") and name.count("/") == 1}
    assert databases == {f"video_db/{name}" for name in ("tv", "ht_0", "ht_2", "ht_10")}
    needs = "← video_db/ht_0, video_db/ht_10, video_db/ht_2"
    assert lines["txt_db/ann/ht_clips.jsonl"].endswith(needs)
    assert "← txt_db/ann/ht_clips.jsonl, video_db/ht_0" in lines["txt_db/ht_subtitles.db"]
    assert lines["txt_db/pretrain_splits/ht"].endswith(f"txt_db/ht_subtitles.db, {needs[2:]}")
    prepare_data.main([*names, *shards, "--dry-run", "--only", "txt_db/pretrain_splits/ht"])
    assert "ht_train_0.json is missing" in capsys.readouterr().out


def test_lists_to_pretrain_on_that_are_there_are_taken(storage, raw, capsys):
    """And stay the ones when the databases are made again."""
    copy = [*raw, "--only", "txt_db/pretrain_splits/*"]
    write_json(Path(raw[3]) / "tv_pretrain_train.json", ["b", "a"])
    with pytest.raises(UserError, match=r"but no tv_pretrain_val\.json: put both there"):
        prepare(storage, *copy, dataset="tv_pretrain")
    write_json(Path(raw[3]) / "tv_pretrain_val.json", ["c"])
    prepare(storage, *copy, dataset="tv_pretrain")
    lists = storage / "txt_db" / "pretrain_splits"
    assert read_json(lists / "tv_train.json") == ["b", "a"]
    assert read_json(lists / "tv_val.json") == ["c"]
    assert {path.name for path in storage.iterdir() if not path.name.startswith(".")} == {"txt_db"}
    capsys.readouterr()
    prepare(storage, *copy, "--force", dataset="tv_pretrain")
    names = "txt_db/pretrain_splits/tv_train.json, txt_db/pretrain_splits/tv_val.json"
    printed = capsys.readouterr().out
    assert f"--force without a STEP: all 2 run again: {names}\n" in printed
    assert printed.count("(forced)") == 2


# --------------------------------------------------------------------------------------------------
# What is documented
# --------------------------------------------------------------------------------------------------


def documented() -> list[list[str]]:
    """Arguments of every call of prepare_data.py in the README and docs/DATA.md."""
    found = []
    for name in ("README.md", "docs/DATA.md"):
        for block in re.findall(r"```bash\n(.*?)```", (REPOSITORY / name).read_text(), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line.partition(" | ")[0], comments=True)
                if "scripts/prepare_data.py" in words:
                    found.append(words[words.index("scripts/prepare_data.py") + 1 :])
    return found


@pytest.mark.parametrize("words", documented(), ids=" ".join)
def test_documented_calls(mirrors, raw, tmp_path, monkeypatch, capsys, words):
    monkeypatch.setenv("HERO_BLOB_URL", str(mirrors[0]))
    (tmp_path / "feat").rename(tmp_path / "features")
    words = [word.replace("$PATH_TO_STORAGE", str(tmp_path)) for word in words]
    prepare_data.main(words if "--graph" in words else [*words, "--dry-run"])
    assert "txt_db/tvr_val.db" in capsys.readouterr().out


def test_documented_options_and_files(mirrors, capsys):
    text = (REPOSITORY / "docs" / "DATA.md").read_text()
    with pytest.raises(SystemExit):
        prepare_data.main(["--help"])
    known = set(re.findall(r"--[a-z_-]+", capsys.readouterr().out))
    # The options of prepare_data.py: those of its table, and no other script's.
    table = text.partition("| option | |")[2].partition("```")[0]
    named = set(re.findall(r"--[a-z_-]+", " ".join(re.findall(r"`(--[^`]*)`", table))))
    assert named <= known and {"--dry-run", "--graph", "--force", "--jobs", "--from"} <= named
    for script in re.findall(r"`(\w+\.(?:py|sh))`", text):
        assert (REPOSITORY / "scripts" / script).exists() or (REPOSITORY / script).exists(), script
