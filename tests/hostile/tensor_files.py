"""Checkpoints and restore points that are damaged, or hold something else than weights."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.hostile.harness import Case, Make, Place, damaged_file
from tests.hostile.records import without_references
from tests.hostile.stores import cut_to, header, patch_bytes
from tests.hostile.text_files import as_folder, of_task
from tests.hostile.worlds import copy_world, evaluation, resuming, training

TRAINED = "run/ckpt/model_step_1.pt"


def load(path: Path) -> Any:
    return torch.load(path, weights_only=True)


def edited(edit: Callable[[dict], Any]) -> Callable[[Path], object]:
    """The file with what it holds changed; ``edit`` returns what is saved, or changes in place."""

    def damage(path: Path) -> None:
        content = load(path)
        changed = edit(content)
        torch.save(content if changed is None else changed, path)

    return damage


def weight(state: dict) -> str:
    """A weight of the encoder with two dimensions."""
    return next(name for name in state if "f_encoder" in name and name.endswith("query.weight"))


def replaced(change: Callable[[torch.Tensor], Any]) -> Callable[[Path], object]:
    """One weight is something else."""
    return edited(lambda state: state | {weight(state): change(state[weight(state)])})


def overwrite_middle(path: Path) -> None:
    """4 KB in the middle of the largest entry are other bytes."""
    with zipfile.ZipFile(path) as packed:
        largest = max(packed.infolist(), key=lambda entry: entry.file_size)
    size = min(4096, largest.file_size // 2)
    at = largest.header_offset + (largest.file_size - size) // 2 + 100
    patch_bytes(path, at, b"\x11" * size)


class _Command:
    """What an unpickler that executes things would execute."""

    def __reduce__(self) -> tuple:
        return print, ("executed",)


def with_entry(name: str, content: bytes) -> Callable[[Path], object]:
    """An entry of the zip file is another; its checksum is right."""

    def damage(path: Path) -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w") as new:
            for entry in old.infolist():
                is_it = entry.filename.endswith(f"/{name}")
                new.writestr(entry, content if is_it else old.read(entry))
        path.write_bytes(buffer.getvalue())

    return damage


def quantised(value: torch.Tensor) -> torch.Tensor:
    return torch.quantize_per_tensor(value, 0.1, 0, torch.qint8)


CONTENTS: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    # of a checkpoint: damage, words beside the file's name
    "empty": (cut_to(0), ()),
    "cut short": (lambda path: cut_to(path.stat().st_size // 2)(path), ()),
    "4 KB in the middle overwritten": (overwrite_middle, ("data/",)),
    "text": (lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), ()),
    "a folder": (as_folder, ("folder",)),
    "a pickled command": (edited(lambda _: {"a": _Command()}), ()),
    "a program in its pickle": (with_entry("data.pkl", pickle.dumps(_Command())), ()),
    "a damaged pickle": (with_entry("data.pkl", b"\x80\x02}q\x00garbage"), ()),
    "a list": (edited(lambda _: [1, 2, 3]), ("list",)),
    "an empty dictionary": (edited(lambda _: {}), ()),
    "whole numbers as names": (edited(lambda state: dict(enumerate(state.values()))), ()),
    "a number in place of a weight": (replaced(lambda _: torch.tensor(1.0)), ("shape",)),
    "a sparse weight": (replaced(lambda value: value.to_sparse()), ("f_encoder", "sparse")),
    "a quantised weight": (replaced(quantised), ("f_encoder", "quantized")),
    "a weight without values": (
        replaced(lambda value: torch.empty(value.shape, device="meta")),
        ("f_encoder", "meta"),
    ),
    "a weight of whole numbers": (replaced(lambda value: value.long()), ("f_encoder",)),
    "complex numbers": (replaced(lambda value: value.to(torch.complex64)), ("f_encoder",)),
    "another shape": (replaced(lambda value: value[:3]), ("f_encoder", "shape")),
    "NaN": (replaced(lambda value: value * float("nan")), ("f_encoder", "not finite")),
    "infinity": (replaced(lambda value: value / 0.0), ("f_encoder", "not finite")),
}


def from_checkpoint(damage: Callable[[Path], object]) -> Make:
    """A training that starts from a damaged checkpoint."""

    def make(place: Place) -> list[object]:
        arguments = training(place)
        checkpoint = (place.folder / TRAINED).rename(place.folder / "start.pt")
        damage(checkpoint)
        return [*arguments, "--checkpoint", checkpoint]

    return make


CASES = [
    Case("checkpoint", mutation, "train_vcmr", from_checkpoint(damage), ("start.pt", *words))
    for mutation, (damage, words) in CONTENTS.items()
]
for _script, _arrange in (
    ("eval_vcmr", evaluation),
    ("eval_videoQA", of_task(evaluation, "tvqa")),
    ("inf_tvc", without_references),
):
    CASES += [
        Case(
            "checkpoint",
            mutation,
            _script,
            damaged_file(_arrange, TRAINED, damage),
            ("model_step_1", *words),
        )
        for mutation, (damage, words) in CONTENTS.items()
        if mutation in ("4 KB in the middle overwritten", "NaN", "a sparse weight", "cut short")
    ]


def as_safetensors(damage: Callable[[Path], object]) -> Make:
    def make(place: Place) -> list[object]:
        arguments = training(place)
        path = place.write("start.safetensors", b"\0" * 64)
        damage(path)
        return [*arguments, "--checkpoint", path]

    return make


CASES += [
    Case("safetensors checkpoint", mutation, "train_vcmr", as_safetensors(damage), (name,))
    for name in ["start.safetensors"]
    for mutation, damage in {
        "zeros": lambda path: None,
        "empty": cut_to(0),
        "a header of 2^62 bytes": header(b"{}", 1 << 62),
        "a header nested 200,000 deep": header(b"[" * 200_000),
        "offsets beyond its end": header(
            b'{"a": {"dtype": "F32", "shape": [5, 4], "data_offsets": [0, 80]}}'
        ),
        "no weights": header(b"{}      "),
    }.items()
]


def moments(state: dict) -> dict:
    """The optimizer's state with moments of one value each."""

    def shrink(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shrink(member) for key, member in value.items()}
        return value.flatten()[:1] if isinstance(value, torch.Tensor) and value.dim() else value

    return shrink(state["optimizer"])


def resumed(damage: Callable[[Path], object]) -> Make:
    """A training that goes on from a damaged restore point, without a backup."""

    def make(place: Place) -> list[object]:
        arguments = resuming(place)
        (place.folder / "run" / "restore_backup.pt").unlink(missing_ok=True)
        damage(place.folder / "run" / "restore.pt")
        return [*arguments, "--num_train_steps", 2, "--allow_changed_options"]

    return make


RESTORES: dict[str, Callable[[Path], object]] = {
    "empty": cut_to(0),
    "cut short": lambda path: cut_to(path.stat().st_size // 2)(path),
    "4 KB in the middle overwritten": overwrite_middle,
    "text": lambda path: path.write_bytes(b"restore"),
    "a folder": as_folder,
    "a pickled command": edited(lambda _: {"a": _Command()}),
    "a list": edited(lambda _: [1, 2]),
    "another program's": edited(lambda _: {"epoch": 3, "arch": "resnet"}),
    "a step that is a text": edited(lambda state: state | {"step": "one"}),
    "a negative step": edited(lambda state: state | {"step": -4}),
    "a model of other names": edited(lambda state: state | {"model": {"a": torch.ones(2)}}),
    "a model of another width": edited(
        lambda state: (
            state
            | {
                "model": {
                    name: value[:3] if value.dim() else value
                    for name, value in state["model"].items()
                }
            }
        )
    ),
    "a model that is a list": edited(lambda state: state | {"model": [1]}),
    "NaN in the model": edited(
        lambda state: (
            state
            | {
                "model": {
                    n: v * float("nan") if v.is_floating_point() else v
                    for n, v in state["model"].items()
                }
            }
        )
    ),
    "an optimizer that is null": edited(lambda state: state | {"optimizer": None}),
    "an optimizer of other weights": edited(
        lambda state: state | {"optimizer": {"state": {}, "param_groups": []}}
    ),
    "an optimizer of wrong shapes": edited(lambda state: state | {"optimizer": moments(state)}),
    "a loader without its places": edited(lambda state: state | {"loader": {}}),
    "a loader at a place that is a text": edited(
        lambda state: state | {"loader": dict.fromkeys(state["loader"], "text")}
    ),
    "a loader that is a list": edited(lambda state: state | {"loader": [1, 2]}),
    "a generator that is a text": edited(
        lambda state: state | {"random": [{**state["random"][0], "torch": "text"}]}
    ),
    "metrics that are a list": edited(lambda state: state | {"metrics": [1]}),
}
CASES += [
    Case("restore point", mutation, "train_vcmr", resumed(damage), ("restore.pt",))
    for mutation, damage in RESTORES.items()
]


def backed_up(damage: Callable[[Path], object]) -> Make:
    """The same, with a sound backup beside it."""

    def make(place: Place) -> list[object]:
        arguments = resuming(place)
        point = place.folder / "run" / "restore.pt"
        (place.folder / "run" / "restore_backup.pt").write_bytes(point.read_bytes())
        damage(point)
        return arguments

    return make


CASES += [
    Case(
        "restore point with its backup",
        mutation,
        "train_vcmr",
        backed_up(RESTORES[mutation]),
        ("restore.pt", "restore_backup.pt", "after step 1"),
        code=0,
    )
    for mutation in ("empty", "cut short", "4 KB in the middle overwritten", "text")
]


def roberta_folder(files: dict[str, bytes]) -> Make:
    """A start from a RoBERTa folder."""

    def make(place: Place) -> list[object]:
        arguments = training(place)
        for name, content in files.items():
            place.write(f"roberta/{name}", content)
        place.path("roberta/x")
        return [
            *arguments,
            "--checkpoint",
            place.folder / "roberta",
            "--load_partial_pretrained",
        ]

    return make


CONFIG = json.dumps({"model_type": "roberta", "hidden_size": 16}).encode()
CASES += [
    Case("RoBERTa folder", mutation, "train_vcmr", roberta_folder(files), ("roberta",))
    for mutation, files in {
        "empty": {},
        "a config only": {"config.json": CONFIG},
        "a config that is garbage": {"config.json": b"{", "pytorch_model.bin": b"x"},
        "weights that are garbage": {"config.json": CONFIG, "pytorch_model.bin": b"garbage"},
        "safetensors that are garbage": {"config.json": CONFIG, "model.safetensors": b"garbage!"},
    }.items()
]


def named(name: str, *, beside: str | None = None) -> Make:
    """An evaluation of a checkpoint of this name."""

    def make(place: Place) -> list[object]:
        arguments = evaluation(place)
        if beside is not None:
            place.write(f"run/ckpt/{beside}", (place.folder / TRAINED).read_bytes())
        arguments[arguments.index("--checkpoint") + 1] = name
        return arguments

    return make


CASES.append(
    Case(
        "checkpoint",
        "a text in place of a weight",
        "train_vcmr",
        from_checkpoint(replaced(lambda _: "text")),
        ("start.pt", "MISSING", "query.weight"),
        code=0,
    )
)
CASES += [
    Case("name of a checkpoint", repr(name)[:30], "eval_vcmr", named(name), words)
    for name, words in {
        "²": ("²",),
        "-1": ("-1",),
        "99": ("model_step_99.pt", "steps 1"),
        "1e0": ("1e0",),
        "9" * 5000: ("does not exist",),
        "x" * 300: ("xxx",),
        "/": ("/",),
        "": ("checkpoint",),
        "model_step_2.pt": ("model_step_2.pt",),
    }.items()
]
CASES.append(
    Case(
        "name of a checkpoint",
        "a best one beside the steps",
        "eval_vcmr",
        named("7", beside="model_step_best.pt"),
        ("model_step_7.pt", "steps 1", "model_step_best.pt"),
    )
)


def of_another_task(place: Place) -> list[object]:
    arguments = evaluation(place)
    other = Place(place.folder / "other")
    copy_world(other, "tvqa")
    arguments[arguments.index("--checkpoint") + 1] = other.folder / TRAINED
    return arguments


CASES.append(
    Case("checkpoint", "of another task", "eval_vcmr", of_another_task, ("other", "another task"))
)


def no_run(place: Place) -> list[object]:
    arguments = evaluation(place)
    copy_world(place)
    (place.folder / "run" / "log" / "hps.json").unlink()
    return arguments


CASES.append(Case("run folder", "no options", "eval_vcmr", no_run, ("hps.json",)))
