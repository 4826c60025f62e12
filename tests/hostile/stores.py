"""Databases whose files are damaged, and features that are none."""

import io
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from safetensors.numpy import save_file

from data.stores.lmdb_io import FeatureDb, FeatureDbWriter
from tests.hostile.harness import Case, Make, Place, damaged_file, spread
from tests.hostile.line_files import INFINITY, NAN
from tests.hostile.records import set_value, with_value, without_references
from tests.hostile.text_files import as_folder, of_task
from tests.hostile.worlds import copy_world, evaluation, search, training
from tests.support.damaged_world import INTERVAL, WIDTH
from tests.support.databases import plain

PAGE = 4096
FEATURES = "video/resnet_slowfast_2"


def patch_bytes(path: Path, at: int, content: bytes) -> None:
    """Overwrite a part of a file."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


def cut_to(size: int) -> Callable[[Path], object]:
    """Cut a file to so many bytes."""

    def damage(path: Path) -> None:
        with path.open("r+b") as file:
            file.truncate(size)

    return damage


def promise_more(path: Path) -> None:
    """Both meta pages say that the file has more pages than it has."""
    for page in (0, 1):
        patch_bytes(path, page * PAGE + 16 + 120, (10_000).to_bytes(8, "little"))


def dangling(path: Path) -> None:
    """A link to nothing."""
    path.unlink()
    path.symlink_to("nowhere")


LMDB_MUTATIONS: dict[str, Callable[[Path], object]] = {
    "empty": cut_to(0),
    "half of it": lambda path: cut_to(path.stat().st_size // 2 // PAGE * PAGE)(path),
    "its last page cut": lambda path: cut_to(path.stat().st_size - PAGE)(path),
    "ten bytes": cut_to(10),
    "zeros": lambda path: path.write_bytes(b"\0" * 4 * PAGE),
    "text": lambda path: path.write_bytes(b"<html>404</html>\n" * 1000),
    "a wrong magic number": lambda path: [patch_bytes(path, at, b"\0" * 32) for at in (16, 4112)],
    "more pages promised": promise_more,
    "a folder": as_folder,
    "a dangling link": dangling,
}

LMDB_READERS: list[tuple[str, str, Make, str]] = [
    ("query database", "train_vcmr", training, "train.db"),
    ("query database", "eval_videoQA", of_task(evaluation, "tvqa"), "val.db"),
    ("subtitle database", "pretrain", of_task(training, "pretrain"), "subtitles.db"),
    ("subtitle database", "scripts.search_videos", search, "subtitles.db"),
    ("caption database", "train_tvc", of_task(training, "tvc"), "train.db/cap.db"),
    ("feature database", "train_violin", of_task(training, "violin"), FEATURES),
    ("feature database", "eval_vcmr", evaluation, FEATURES),
]


CASES = [
    Case(
        reader,
        mutation,
        script,
        damaged_file(arrange, f"{database}/data.mdb", damage),
        (Path(database).name,),
    )
    for (reader, script, arrange, database), (mutation, damage) in spread(
        LMDB_MUTATIONS.items(), LMDB_READERS, 3
    )
]


def array_map(**changes: Any) -> bytes:
    """The same of (6, 4) float32, with entries of the array's map changed."""
    array = {b"nd": True, b"type": "<f4", b"kind": b"", b"shape": (6, WIDTH)}
    array[b"data"] = np.ones((6, WIDTH), np.float32).tobytes()
    array |= {name.encode(): value for name, value in changes.items()}
    return msgpack.packb({"features": array}, use_bin_type=True)


def with_one(value: float) -> np.ndarray:
    """Features with one value that is none."""
    features = np.ones((6, WIDTH), np.float32)
    features[3, 2] = value
    return features


FEATURE_RECORDS: dict[str, Callable[[], bytes]] = {
    "no msgpack": lambda: b"\xc1" * 40,
    "cut short": lambda: plain(np.ones((6, WIDTH), np.float32))[:-10],
    "no features": lambda: msgpack.packb({"feature": 1}),
    "a list": lambda: msgpack.packb([1, 2]),
    "one dimension": lambda: plain(np.ones(6, np.float32)),
    "no frames": lambda: plain(np.ones((0, WIDTH), np.float32)),
    "width 0": lambda: plain(np.ones((6, 0), np.float32)),
    "whole numbers": lambda: plain(np.ones((6, WIDTH), np.int64)),
    "complex numbers": lambda: plain(np.ones((6, WIDTH), np.complex64)),
    "another width": lambda: plain(np.ones((6, WIDTH + 1), np.float32)),
    "NaN": lambda: plain(with_one(NAN)),
    "infinity": lambda: plain(with_one(INFINITY)),
    "a pickled array": lambda: array_map(kind=b"O", data=b"cos\nsystem\n(S'true'\ntR."),
    "objects": lambda: array_map(type="|O"),
    "a shape of 10^12": lambda: array_map(shape=(10**9, 1000)),
    "a negative shape": lambda: array_map(shape=(-6, -4)),
    "an unknown type": lambda: array_map(type="<q99"),
    "a type that is nested 10,000 deep": lambda: array_map(type=[["a", "<f4"]] * 10_000),
}


def train_on_features(value: Callable[[], bytes]) -> Make:
    return with_value(training, FEATURES, "b", value)


CASES += [
    Case(
        "feature record",
        mutation,
        "train_vcmr",
        train_on_features(value),
        ("resnet_slowfast_2", " b " if mutation == "no frames" else "'b'"),
    )
    for mutation, value in FEATURE_RECORDS.items()
]
EVALUATED = ("NaN", "infinity", "width 0", "no frames", "one dimension", "a pickled array")
FEATURE_READERS = [
    ("eval_vr", of_task(evaluation, "msrvtt_video_sub")),
    ("eval_violin", of_task(evaluation, "violin")),
    ("inf_tvc", without_references),
    ("pretrain", of_task(training, "pretrain")),
]
CASES += [
    Case(
        "feature record",
        mutation,
        script,
        with_value(arrange, FEATURES, "c", FEATURE_RECORDS[mutation]),
        ("resnet_slowfast_2", " c " if mutation == "no frames" else "'c'"),
    )
    for (script, arrange), mutation in spread((*EVALUATED, "a list"), FEATURE_READERS, 2)
]


def npz(**entries: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **entries)
    return buffer.getvalue()


def npy_header(header: str) -> bytes:
    """An npz file whose entry has this header and no more."""
    text = header.encode()
    content = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("features.npy", content)
    return buffer.getvalue()


def zip_bomb() -> bytes:
    """200 KB that grow to 6 GB of zeros, honestly declared."""
    buffer = io.BytesIO()
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (400000000, 4)}"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("features.npy", content + b"\0" * (64 << 20))
    return buffer.getvalue()


def broken_crc() -> bytes:
    """One byte of the values is another."""
    buffer = io.BytesIO()
    np.savez(buffer, features=np.ones((6, WIDTH), np.float32))
    content = bytearray(buffer.getvalue())
    content[content.index(b"\x00\x00\x80\x3f") + 2] ^= 1
    return bytes(content)


NPZ_RECORDS: dict[str, Callable[[], bytes]] = {
    "no zip file": lambda: b"PK\x03\x04 not really",
    "cut short": lambda: npz(features=np.ones((6, WIDTH), np.float32))[:-30],
    "no features": lambda: npz(other=np.ones((6, WIDTH), np.float32)),
    "a wrong checksum": broken_crc,
    "objects": lambda: npy_header("{'descr': '|O', 'fortran_order': False, 'shape': (6,)}\n"),
    "a header that is a program": lambda: npy_header("__import__('os').system('true')\n"),
    "a shape of 10^12": lambda: npy_header(
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 1000)}\n"
    ),
    "more rows declared than there are": zip_bomb,
    "NaN": lambda: npz(features=with_one(NAN)),
}


def compressed(value: Callable[[], bytes]) -> Make:
    """A training on compressed features, one record of which is replaced."""

    def make(place: Place) -> list[object]:
        arguments = training(place)
        database = rewrite_features(place.folder, compressed=True)
        set_value(database, "b", value())
        return [*arguments, "--compressed_db"]

    return make


def rewrite_features(folder: Path, **variant: Any) -> Path:
    """The features as another variant of database; returns its folder."""
    source = FeatureDb(folder / "video", interval=INTERVAL)
    with FeatureDbWriter(folder / "video", interval=INTERVAL, **variant) as writer:
        for vid in source.id2nframe:
            writer.put(vid, source[vid])
    return writer.path


CASES += [
    Case(
        "compressed feature record",
        mutation,
        "train_vcmr",
        compressed(value),
        ("resnet_slowfast_2_compressed", "'b'"),
    )
    for mutation, value in NPZ_RECORDS.items()
]


def tensor_file(damage: Callable[[Path], object]) -> Make:
    """A training on features in a safetensors file that is damaged."""

    def make(place: Place) -> list[object]:
        arguments = training(place)
        database = rewrite_features(place.folder, format_="safetensors")
        shutil.rmtree(place.folder / FEATURES)
        damage(database / "00000.safetensors")
        return arguments

    return make


def header(content: bytes, size: int | None = None) -> Callable[[Path], object]:
    """A safetensors file that is a header only."""
    length = (len(content) if size is None else size).to_bytes(8, "little")
    return lambda path: path.write_bytes(length + content)


def with_array(array: np.ndarray) -> Callable[[Path], object]:
    """A safetensors file in which video b has these features."""

    def damage(path: Path) -> None:
        sound = {vid: np.ones((frames, WIDTH), np.float32) for vid, frames in FRAMES.items()}
        save_file(sound | {"b": array}, path)

    return damage


FRAMES = {"a": 6, "c": 4, "d": 3}
SAFETENSORS: dict[str, Callable[[Path], object]] = {
    "empty": cut_to(0),
    "cut short": cut_to(300),
    "a header of 2^62 bytes": header(b"{}", 1 << 62),
    "a header nested 200,000 deep": header(b"[" * 200_000),
    "a header that is no object": header(b"[1, 2]  "),
    "offsets beyond its end": header(
        b'{"b": {"dtype": "F32", "shape": [5, 4], "data_offsets": [0, 80]}}'
    ),
    "whole numbers": with_array(np.ones((5, WIDTH), np.int32)),
    "NaN": with_array(with_one(NAN)[:5]),
    "one dimension": with_array(np.ones(5, np.float32)),
    "a folder": as_folder,
}
CASES += [
    Case(
        "safetensors features",
        mutation,
        "train_vcmr",
        tensor_file(damage),
        ("resnet_slowfast_2_safetensors",),
    )
    for mutation, damage in SAFETENSORS.items()
]


def counts(content: str, name: str = "id2nframe.json") -> Make:
    """Another id2nframe.json, or one of the interval's own beside it."""

    def make(place: Place) -> list[object]:
        arguments = training(place)
        place.write(f"video/{name}", content)
        return arguments

    return make


COUNTS = {
    "a number of 10^9": '{"a": 6, "b": 1000000000, "c": 4, "d": 3}',
    "a negative number": '{"a": 6, "b": -5, "c": 4, "d": 3}',
    "a number that is a text": '{"a": 6, "b": "5", "c": 4, "d": 3}',
    "half a frame": '{"a": 6, "b": 4.5, "c": 4, "d": 3}',
    "a number that is null": '{"a": 6, "b": null, "c": 4, "d": 3}',
    "true": '{"a": 6, "b": true, "c": 4, "d": 3}',
    "zero": '{"a": 6, "b": 0, "c": 4, "d": 3}',
    "NaN": '{"a": 6, "b": NaN, "c": 4, "d": 3}',
}
CASES += [
    Case("numbers of frames", mutation, "train_vcmr", counts(content), ("id2nframe", "b"))
    for mutation, content in COUNTS.items()
]
CASES += [
    Case(
        "numbers of frames of an interval",
        mutation,
        "train_vcmr",
        counts(COUNTS[mutation], "id2nframe_2.json"),
        ("id2nframe_2.json", "b"),
    )
    for mutation in ("a number of 10^9", "half a frame", "true")
]


def converted(value: Callable[[], bytes]) -> Make:
    """A conversion of a feature database whose only record is replaced."""

    def make(place: Place) -> list[object]:
        folder = copy_world(place)
        with FeatureDbWriter(folder / "one", interval=INTERVAL) as writer:
            writer.put("b", np.ones((6, WIDTH), np.float32))
        set_value(writer.path, "b", value())
        words = ["--vfeat_db", folder / "one", "--output", folder / "to", "--dataset", "x"]
        return [*words, "--frame_length", INTERVAL]

    return make


def cut_features(value: Callable[[], bytes]) -> Make:
    """Features to cut into clips, one record of which is replaced."""

    def make(place: Place) -> list[object]:
        arguments = converted(value)(place)[:2]
        line = '{"vid_name": "b", "sub": []}\n'
        arguments += ["--annotation", place.write("subtitles.jsonl", line)]
        arguments += ["--clip_vfeat_db", place.folder / "clips", "--frame_length", INTERVAL]
        return [*arguments, "--clip_interval", 4, "--output", place.folder / "clips.jsonl"]

    return make


CASES += [
    Case(
        "feature record",
        mutation,
        "scripts.cut_clips",
        cut_features(FEATURE_RECORDS[mutation]),
        ("resnet_slowfast_2", "b"),
    )
    for mutation in (*EVALUATED, "no msgpack", "a shape of 10^12", "no features")
]
CASES += [
    Case(
        "feature record",
        mutation,
        "scripts.convert_videodb",
        converted(value),
        ("resnet_slowfast_2", "no video", "b"),
    )
    for mutation, value in FEATURE_RECORDS.items()
    if mutation not in ("another width",)
]
