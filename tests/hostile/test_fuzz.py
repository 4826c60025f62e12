"""Random damage: a reader gives sound data or says what is wrong in one line, and does no harm."""

import io
import pickle
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import lz4.frame
import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.prepare.archives import ArchiveError, extract
from data.prepare.feature_files import read_pickle
from data.prepare.subtitle_files import parse_subtitles
from data.stores.lmdb_io import FeatureDb, FeatureDbWriter, TextDb, TextDbWriter, feature_db_path
from tests.hostile.archives import tar_of, zip_of
from tests.hostile.harness import LINE_CHARACTERS, Place, contents, run_command
from tests.hostile.records import packed, set_value
from tests.hostile.stores import npz, plain
from tests.hostile.worlds import training
from utils.errors import RecordError, UserError
from utils.files import read_json


def budget(examples: int) -> settings:
    """So many examples, the same ones each time."""
    slow = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=slow,
    )


@contextmanager
def one_line() -> Iterator[None]:
    """What is refused in the block is refused in a line of decent length."""
    try:
        yield
    except UserError as error:
        line = " ".join(str(error).split())
        assert 0 < len(line) <= LINE_CHARACTERS, line
        assert line.isprintable(), line


@st.composite
def damaged(draw: Callable, sound: bytes) -> bytes:
    """Sound bytes with a few changed, cut out or put in."""
    content = bytearray(sound)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        kind = draw(st.sampled_from(["change", "cut", "insert", "end"]))
        if kind == "change" and content:
            content[at] = draw(st.integers(0, 255))
        elif kind == "cut":
            del content[at : at + draw(st.integers(1, 40))]
        elif kind == "insert":
            content[at:at] = draw(st.binary(min_size=1, max_size=20))
        else:
            del content[at:]
    return bytes(content)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
RECORD = {"qid": "a0", "vid": "a", "input_ids": [20, 21], "target": [1.0, 3.5], "desc": "words"}
MSGPACK = msgpack.packb(RECORD, use_bin_type=True)


@pytest.fixture(scope="module")
def text_db(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "text.db"
    with TextDbWriter(path) as db:
        db.put("a0", RECORD)
        db.write_side("meta.json", {"CLS": 0})
    return path


@budget(150)
@given(
    value=st.binary(max_size=60)
    | damaged(packed(RECORD))
    | damaged(MSGPACK).map(lz4.frame.compress)
)
def test_a_text_record(text_db, value):
    with tempfile.TemporaryDirectory() as copy:
        path = Path(shutil.copytree(text_db, Path(copy, "text.db")))
        set_value(path, "a0", value)
        with one_line():
            assert isinstance(TextDb(path)["a0"], dict)


@pytest.fixture(scope="module")
def feature_db(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "video"
    for compressed in (False, True):
        with FeatureDbWriter(folder, compressed=compressed) as db:
            db.put("a", np.ones((3, 4), np.float32))
    return folder


SOUND = np.arange(12, dtype=np.float32).reshape(3, 4)


@budget(150)
@given(value=damaged(plain(SOUND)) | st.binary(max_size=60))
def test_a_feature_record(feature_db, value):
    _read_features(feature_db, value, compressed=False)


@budget(100)
@given(value=damaged(npz(features=SOUND)))
def test_a_compressed_feature_record(feature_db, value):
    _read_features(feature_db, value, compressed=True)


def _read_features(folder: Path, value: bytes, compressed: bool) -> None:
    with tempfile.TemporaryDirectory() as copy:
        folder = Path(shutil.copytree(folder, Path(copy, "video")))
        set_value(feature_db_path(folder, "resnet_slowfast", 1.5, compressed), "a", value)
        with one_line():
            features = FeatureDb(folder, compressed=compressed)["a"]
            assert features.dtype == np.float32 and features.ndim == 2
            assert features.shape[0] <= 3 and np.isfinite(features).all()


FIELDS = st.sampled_from(["qid", "vid", "input_ids", "target", "desc"])


@budget(60)
@given(field=FIELDS, value=VALUES)
def test_a_query_in_a_training(field, value, capfd):
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder))
        arguments = training(place)
        set_value(place.folder / "train.db", "a0", packed(RECORD | {field: value}))
        outcome = run_command("train_vcmr", arguments, {})
    assert outcome.raised is None
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert (outcome.code, len(errors)) in ((0, 0), (2, 1))
    assert all(len(line) <= LINE_CHARACTERS and line.isprintable() for line in errors)


@budget(200)
@given(
    content=st.binary(max_size=40)
    | damaged(b'{"a": [1, 2.5, "x", null, true], "b": {"c": "\\u00e9"}}')
)
def test_a_json_file(tmp_path, content):
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with one_line():
        read_json(path)


PATHS = {"a": (6, "/x/slowfast_features/y/a.npz", "/x/resnet_features/y/a.npz", "y")}


@budget(200)
@given(
    content=st.binary(max_size=60) | damaged(pickle.dumps(PATHS)) | damaged(pickle.dumps(PATHS, 0))
)
def test_a_pickle(tmp_path, content):
    path = tmp_path / "file.pkl"
    path.write_bytes(content)
    with one_line():
        _only_plain(read_pickle(path))


def _only_plain(value: Any) -> None:
    assert value is None or type(value) in (dict, list, tuple, str, int, float, bool)
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    for member in value if isinstance(value, list | tuple) else ():
        _only_plain(member)


SUBTITLES = (
    "1\n00:00:01,000 --> 00:00:02,500\n<i>Hi</i> {\\an8}&amp; <v\n\n"
    "2\n00:00:03,000 --> 00:00:04,000\n42\n",
    "WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:9,LOCAL:00:00.000\n\nSTYLE\n::cue{}\n\n"
    "id\n00:01.000 --> 00:02.000 line:0\n<v Ada>one<00:01.500><c> two</c>\n"
    "WEBVTT\n\n00:03.000 --> 00:04.000\nthree",
    "[Script Info]\n[Events]\nFormat: Layer, Start, End, Text\n"
    "Dialogue: 0,0:00:01.00,0:00:02.00,{\\p1}m 0 0{\\p0}one\\Ntwo, {three}\n",
    "{1}{1}25\n{25}{50}{y:i}one|two\n{75}{99}three\n",
    "[10][20]/one|two\n[30][40]three\n",
    '<tt xmlns="http://www.w3.org/ns/ttml"><body><div><p begin="1.5s" end="00:00:02.000">one<br/>'
    "</p></div></body></tt>",
)
FILES = st.sampled_from(SUBTITLES).flatmap(
    lambda text: st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252", "utf-32"]).flatmap(
        lambda encoding: damaged(text.encode(encoding))
    )
)


@budget(1000)
@given(content=FILES | st.binary(max_size=60), doubled=st.booleans())
def test_a_subtitle_file(content, doubled):
    began = time.process_time()
    try:
        found = parse_subtitles(content + content if doubled else content)
    except RecordError as error:
        assert str(error).isprintable() and len(str(error)) <= LINE_CHARACTERS, str(error)
    else:
        assert all(0 <= cue.start <= cue.end < 1e6 and cue.text.strip() for cue in found.cues)
        assert found.cues == sorted(found.cues, key=lambda cue: cue.start)
        assert all(note.isprintable() for note in found.notes)
        assert found.cues or found.notes
    assert time.process_time() - began < 2


PIECES = ["<", ">", "{", "}", "\n", "\r", " ", "1:", "00:", "-->", "->", "&", ":", ",", "1\n", "é"]
PIECES += [
    "WEBVTT\n",
    "X-TIMESTAMP-MAP=",
    "{\\p1}",
    "[1]",
    "Dialogue:,",
    "<tt ",
    "<font a=",
    "<v ",
    "0",
]


@pytest.mark.parametrize("piece", PIECES)
def test_a_long_subtitle_file_takes_no_longer_than_long(piece):
    """Time grows with the length of a file, not with its square."""
    for head in ("", *(text[:70] for text in SUBTITLES)):
        content = (head + piece * (200_000 // len(piece))).encode()
        began = time.process_time()
        with suppress(RecordError):
            parse_subtitles(content)
        assert time.process_time() - began < 4


NAMES = st.lists(
    st.sampled_from(["a", "b", "..", ".", "", "link", "é", "x" * 120]), min_size=1, max_size=4
).map("/".join)
KINDS = [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE]
KINDS += [tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE]
MEMBERS = st.lists(st.tuples(NAMES, st.sampled_from(KINDS), NAMES), min_size=1, max_size=5)


def tar_with(members: list[tuple[str, bytes, str]]) -> bytes:
    """A tar file of members (name, type, what a link points to)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            tar.addfile(info)
    return buffer.getvalue()


TAR = tar_of({"meta.json": b"{}", "folder/data.mdb": b"x" * 700})
ZIP = zip_of({"meta.json": b"{}", "folder/data.mdb": b"x" * 700})


@budget(150)
@given(content=MEMBERS.map(tar_with) | damaged(TAR) | damaged(ZIP))
def test_an_archive(content):
    with tempfile.TemporaryDirectory() as root:
        archive = Path(root, "archive")
        archive.write_bytes(content)
        folder = Path(root, "out", "side", "deep")
        folder.mkdir(parents=True)
        Path(root, "out", "kept").write_text("kept")
        with one_line():
            try:
                extract(archive, folder)
            except ArchiveError as error:
                assert str(archive) in str(error)
                raise
        outside = {name for name in contents(Path(root)) if not name.startswith("out/side/deep/")}
        assert outside == {"archive", "out", "out/kept", "out/side", "out/side/deep"}
        assert Path(root, "out", "kept").read_text() == "kept"
        for path in folder.rglob("*"):
            assert path.resolve().is_relative_to(folder.resolve())
