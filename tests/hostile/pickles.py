"""Pickles, and the extractors' files that they list."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.hostile.harness import Case, Make, Place
from tests.hostile.stores import NPZ_RECORDS, npz, with_one
from tests.hostile.text_files import as_folder
from tests.support.damaged_world import INTERVAL, WIDTH
from utils.files import read_json

INFO = "video_feat_info.pkl"


def features(place: Place, vid: str = "a", content: bytes | None = None) -> tuple[Path, Path]:
    """Files of both extractors for a video: sound ones, or the first with this content."""
    sound = npz(features=np.ones((6, WIDTH), np.float32))
    resnet = place.write(f"feat/resnet_features/x/{vid}.npz", sound if content is None else content)
    return resnet, place.write(f"feat/slowfast_features/x/{vid}.npz", sound)


def conversion(place: Place, pickled: bytes) -> list[object]:
    """Words of a conversion of what a pickle lists."""
    words = ["--vfeat_info_file", place.write(INFO, pickled), "--output", place.folder / "out"]
    return [*words, "--dataset", "x", "--frame_length", INTERVAL]


def of_value(value: Callable[[Place], Any]) -> Make:
    """A pickle of a value."""
    return lambda place: conversion(place, pickle.dumps(value(place)))


def of_bytes(content: bytes) -> Make:
    """A pickle that is written by hand."""
    return lambda place: conversion(place, content)


class _Command:
    def __reduce__(self) -> tuple:
        return print, ("executed",)


def sound(place: Place) -> dict[str, tuple]:
    """What the script before writes."""
    resnet, slowfast = features(place)
    return {"a": (6, str(slowfast), str(resnet), "x")}


def crafted_scalar() -> bytes:
    """A NumPy scalar of objects at an address of the writer's choice: a crash, or worse."""
    address = (0x4141414141414141).to_bytes(8, "little")
    return (
        b"\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00O8K\x00K\x01\x87R"
        + b"(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x3ftb"
        + b"q\x000cnumpy.core.multiarray\nscalar\nh\x00C\x08"
        + address
        + b"\x86R."
    )


VALUES: dict[str, Callable[[Place], Any]] = {
    "a list": lambda place: [1, 2],
    "a text": lambda place: "text",
    "null": lambda place: None,
    "an empty dictionary": lambda place: {},
    "whole numbers as entries": lambda place: {"a": 6},
    "entries cut short": lambda place: {"a": (6,)},
    "frames that are a text": lambda place: {"a": ("six", *sound(place)["a"][1:])},
    "negative frames": lambda place: {"a": (-6, *sound(place)["a"][1:])},
    "frames that are NaN": lambda place: {"a": (float("nan"), *sound(place)["a"][1:])},
    "files that are numbers": lambda place: {"a": (6, 1, 2, "x")},
    "a missing file": lambda place: {"a": (6, "/nowhere/a.npz", "/nowhere/b.npz", "x")},
    "files without folders": lambda place: {"a": (6, "a.npz", "b.npz", "x")},
    "fewer frames than noted": lambda place: {"a": (60, *sound(place)["a"][1:])},
    "numbers as videos": lambda place: {1.5: sound(place)["a"]},
    "a NumPy number": lambda place: {"a": (np.int64(6), *sound(place)["a"][1:])},
    "an array": lambda place: {"a": np.ones(3)},
    "a command": lambda place: {"a": _Command()},
    "a set": lambda place: {"a": {1, 2}},
    "bytes": lambda place: {"a": (6, b"\xff", b"\xff", "x")},
}
BYTES: dict[str, bytes] = {
    "empty": b"",
    "cut short": pickle.dumps({"a": (6, "x" * 100, "y", "z")})[:60],
    "garbage": bytes(range(200)),
    "json": b'{"a": [6, "x", "y", "z"]}',
    "a global of NumPy's": b"\x80\x02cnumpy\ndtype\n.",
    "a scalar at a wild address": crafted_scalar(),
    "os.system": b"cos\nsystem\n(S'true'\ntR.",
    "a frame of 2^62 bytes": b"\x80\x04\x95" + (1 << 62).to_bytes(8, "little") + b"}.",
    "a text of 2^60 bytes": b"\x80\x04\x8d" + (1 << 60).to_bytes(8, "little") + b"abc.",
    "nested 100,000 deep": b"(" * 100_000 + b"l" * 100_000 + b".",
    "a list that holds itself": b"\x80\x02]q\x00h\x00a.",
    "protocol 99": b"\x80\x63}.",
    "memory that grows": b"\x80\x02]q\x00" + b"".join(b"h\x00h\x00e" for _ in range(5)) + b".",
}
CASES = [
    Case("feature paths", mutation, "scripts.convert_videodb", of_value(value), (INFO,))
    for mutation, value in VALUES.items()
] + [
    Case("feature paths", mutation, "scripts.convert_videodb", of_bytes(content), (INFO,))
    for mutation, content in BYTES.items()
]


def failed_list(content: bytes) -> Make:
    """A finished conversion whose list of failed videos is another, started again."""

    def make(place: Place) -> list[object]:
        from scripts import convert_videodb

        arguments = conversion(place, pickle.dumps(sound(place)))
        convert_videodb.main(list(map(str, arguments)))
        place.write("out/x/failed_resnet_slowfast_2.pkl", content)
        return arguments

    return make


CASES += [
    Case(
        "failed videos",
        mutation,
        "scripts.convert_videodb",
        failed_list(BYTES[mutation]),
        ("failed_resnet_slowfast_2.pkl",),
    )
    for mutation in (
        "empty",
        "garbage",
        "a scalar at a wild address",
        "os.system",
        "a text of 2^60 bytes",
    )
] + [
    Case(
        "failed videos",
        "a list",
        "scripts.convert_videodb",
        failed_list(pickle.dumps([1])),
        ("failed_resnet_slowfast_2.pkl",),
    )
]


def collection(place: Place) -> list[object]:
    words = ["--feature_dir", place.folder / "feat", "--output", place.folder / "out"]
    return [*words, "--dataset", "x", "--workers", 1]


def only_file(content: Callable[[], bytes]) -> Make:
    """The only video's features are no features."""

    def make(place: Place) -> list[object]:
        features(place, "a", content())
        return collection(place)

    return make


def beside_a_sound_one(content: Callable[[], bytes]) -> Make:
    """One of two videos has no features in its file."""

    def make(place: Place) -> list[object]:
        features(place, "good")
        features(place, "bad", content())
        return collection(place)

    return make


def bad_is_listed(folder: Path) -> None:
    corrupted = read_json(folder / "out" / "x" / "corrupted.json")
    assert list(corrupted) == ["bad"] and "bad.npz" in corrupted["bad"]
    assert len(corrupted["bad"]) < 500
    listed = pickle.loads((folder / "out" / "x" / INFO).read_bytes())
    assert list(listed) == ["good"]


FILES: dict[str, Callable[[], bytes]] = NPZ_RECORDS | {
    "no frames": lambda: npz(features=np.ones((0, WIDTH), np.float32)),
    "width 0": lambda: npz(features=np.ones((6, 0), np.float32)),
    "whole numbers": lambda: npz(features=np.ones((6, WIDTH), np.int64)),
    "one dimension": lambda: npz(features=np.ones(6, np.float32)),
    "infinity": lambda: npz(features=with_one(float("inf"))),
}
CASES += [
    Case(
        "feature file",
        mutation,
        "scripts.collect_video_feature_paths",
        only_file(content),
        ("a.npz", "no video"),
    )
    for mutation, content in FILES.items()
]
CASES += [
    Case(
        "feature file beside a sound one",
        mutation,
        "scripts.collect_video_feature_paths",
        beside_a_sound_one(content),
        ("1 videos", "left out: 1"),
        code=0,
        check=bad_is_listed,
    )
    for mutation, content in FILES.items()
    if mutation in ("width 0", "NaN", "a wrong checksum", "no zip file", "objects")
]


def single(part: str, *files: tuple[str, bytes]) -> Make:
    """Files of one extractor, to make a database of."""

    def make(place: Place) -> list[object]:
        place.write("feat/notes.txt", b"")
        for name, content in files:
            place.write(f"feat/{name}", content)
        words = ["--feature_dir", place.folder / "feat" / part, "--output", place.folder / "out"]
        return [*words, "--dataset", "x", "--workers", 1]

    return make


ONE_KIND = "scripts.convert_video_db_single_feature"
SOUND = ("clip-vit/good.npz", npz(features=np.ones((6, WIDTH), np.float32)))
CASES += [
    Case("one kind of features", "no folder", ONE_KIND, single("clip-vit"), ("clip-vit",)),
    Case("one kind of features", "no files", ONE_KIND, single("", SOUND), ("feat", "one kind")),
    Case(
        "one kind of features",
        "its only file is empty",
        ONE_KIND,
        single("clip-vit", ("clip-vit/a.npz", b"")),
        ("a.npz", "no video"),
    ),
    Case(
        "one kind of features",
        "a file is empty",
        ONE_KIND,
        single("clip-vit", SOUND, ("clip-vit/bad.npz", b"")),
        ("1 videos", "left out: 1"),
        code=0,
    ),
]


def two_of_one_video(place: Place) -> list[object]:
    resnet, _ = features(place)
    place.write("feat/resnet_features/y/a.npz", resnet.read_bytes())
    return collection(place)


def folder_as_file(place: Place) -> list[object]:
    resnet, _ = features(place)
    as_folder(resnet)
    return collection(place)


CASES += [
    Case(
        "feature file",
        "two of one video",
        "scripts.collect_video_feature_paths",
        two_of_one_video,
        ("x/a.npz", "y/a.npz"),
    ),
    Case(
        "feature file",
        "a folder",
        "scripts.collect_video_feature_paths",
        folder_as_file,
        ("a.npz",),
    ),
]


def extraction_record(content: str) -> Make:
    """Another record of what made the features."""

    def make(place: Place) -> list[object]:
        arguments = conversion(place, pickle.dumps(sound(place)))
        place.write("feat/extraction.json", content)
        return arguments

    return make


CASES += [
    Case(
        "record of an extraction",
        content[:30],
        "scripts.convert_videodb",
        extraction_record(content),
        ("extraction.json",),
    )
    for content in (
        "",
        "[1]",
        '{"resnet": 1}',
        '{"resnet": {"interval": "2"}}',
        '{"resnet": {"interval": NaN}}',
        '{"resnet": {"interval": true}}',
    )
]


def converted_file(content: Callable[[], bytes]) -> Make:
    """A conversion of the only video, whose file was damaged after it was listed."""

    def make(place: Place) -> list[object]:
        arguments = conversion(place, pickle.dumps(sound(place)))
        features(place, "a", content())
        return arguments

    return make


CASES += [
    Case(
        "feature file",
        mutation,
        "scripts.convert_videodb",
        converted_file(content),
        (INFO, "no video", "a"),
    )
    for mutation, content in FILES.items()
]


def named_features(name: bytes) -> Make:
    """Features of a video whose name no database can hold."""

    def make(place: Place) -> list[object]:
        features(place, "good")
        folder = os.fsencode(place.folder)
        for part in (b"resnet", b"slowfast"):
            source = Path(place.folder, f"feat/{part.decode()}_features/x/good.npz")
            target = folder + b"/feat/" + part + b"_features/x/" + name + b".npz"
            Path(os.fsdecode(target)).write_bytes(source.read_bytes())
        return collection(place)

    return make


def only_good(folder: Path) -> None:
    listed = pickle.loads((folder / "out" / "x" / INFO).read_bytes())
    assert list(listed) == ["good"]


CASES += [
    Case(
        "feature file beside a sound one",
        "a name that is no text",
        "scripts.collect_video_feature_paths",
        named_features(b"caf\xe9"),
        ("left out: 1",),
        code=0,
        check=only_good,
    ),
]
