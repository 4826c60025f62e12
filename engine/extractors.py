"""The networks that extract features of videos, as options name them."""

import argparse
from pathlib import Path

import torch

from data.prepare.extraction import Provenance
from model.extractors.build import (
    EXTRACTORS,
    HERO_EXTRACTORS,
    build_extractor,
    find_class,
    source_file,
)
from model.extractors.extractor import Extractor, FeatureExtractor, PublishedExtractor
from model.extractors.image_text import ClipFeatures
from model.extractors.weights import file_sha256
from utils.errors import UserError
from utils.tensor_files import weights_file


def add_extractors(parser: argparse.ArgumentParser) -> None:
    """Add the options for networks, their weights, and how they compute."""
    parser.add_argument(
        "--models",
        nargs="+",
        type=_extractor,
        metavar="MODEL",
        default=list(HERO_EXTRACTORS),
        help=f"which to run: {', '.join(EXTRACTORS)}, or your own class, package.module:Class "
        f"(default: {' '.join(HERO_EXTRACTORS)})",
    )
    for name, kind in EXTRACTORS.items():
        text = f"file, folder or name on the hub of weights, such as {kind.source}"
        parser.add_argument(f"--{name}_weights", help=text)
    parser.add_argument(
        "--random_weights",
        action="store_true",
        help="run networks whose weights are not given untrained: features without meaning",
    )
    parser.add_argument(
        "--batch_size", type=int, default=8, help="windows at once (default: %(default)s)"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, … (default: the GPU if there is one)")
    parser.add_argument("--half", action="store_true", help="compute in half precision (GPU)")


def _extractor(word: str) -> str:
    """Return the name of an extractor; whether a class exists is checked later."""
    if word not in EXTRACTORS and ":" not in word:
        names = ", ".join(map(repr, EXTRACTORS))
        raise argparse.ArgumentTypeError(
            f"invalid choice: {word!r} (choose from {names}, or package.module:Class)"
        )
    return word


def check_extractors(options: argparse.Namespace) -> None:
    """Check that networks have weights, or ``--random_weights`` is given.

    Raises:
        UserError: they have not (the message says where weights are), or a number is too small.
    """
    if options.batch_size < 1:
        raise UserError("--batch_size must be at least 1")
    for name in options.models:
        if name not in EXTRACTORS:
            find_class(name)
        elif _weights_of(options, name) is None and not options.random_weights:
            raise UserError(
                f"--{name}_weights is missing: download {EXTRACTORS[name].source} on a "
                "machine with a network and give its path (--help lists other files); "
                "--random_weights tries the commands out with an untrained network"
            )


def choose_device(name: str | None, half: bool, workers: int) -> torch.device:
    """Return the device; on a CPU, leave one of its threads' cores to the decoders.

    Raises:
        UserError: there is no such device, or --half is given for a CPU.
    """
    default = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name or default)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name} cannot be used ({str(error).splitlines()[0]})") from None
    if device.type == "cpu":
        if half:
            raise UserError("--half needs a GPU; leave it out")
        if workers > 1:
            torch.set_num_threads(max(1, torch.get_num_threads() - 1))
    return device


def build_extractors(
    options: argparse.Namespace, interval: float, device: torch.device
) -> tuple[FeatureExtractor, dict[str, Provenance]]:
    """Return the networks, and the provenance of the features of each.

    Raises:
        UserError: one cannot be built, or they do not see the same pictures.
    """
    models, made_by = {}, {}
    for option in dict.fromkeys(options.models):
        weights = _weights_of(options, option)
        model = build_extractor(option, weights, device, options.half)
        name = option if option in EXTRACTORS else model.name
        models[name] = model
        made_by[name] = describe(model, weights, interval)
        if made_by[name].weights is None:
            print(f"WARNING: {name} is untrained (--random_weights): its features mean nothing")
    pictures = {name: model.whole_pictures for name, model in models.items()}
    if len(set(pictures.values())) > 1:
        whole = [name for name in pictures if pictures[name]]
        raise UserError(
            f"{' and '.join(whole)} sees whole pictures, the others of --models a frame's centre: "
            "extract them one after the other, into the same folder"
        )
    return FeatureExtractor(models, device), made_by


def _weights_of(options: argparse.Namespace, name: str) -> str | None:
    return getattr(options, f"{name}_weights", None)


def describe(model: Extractor, weights: str | None, interval: float) -> Provenance:
    """Return the provenance of a network's features."""
    if isinstance(model, ClipFeatures):
        digest = model.sha256
    elif not isinstance(model, PublishedExtractor) or type(model) not in EXTRACTORS.values():
        # The user's own class: its source file identifies it.
        weights = f"{type(model).__module__}:{type(model).__name__}"
        digest = file_sha256(source_file(type(model)))
        return Provenance(model.name, weights, digest, interval, model.width)
    else:
        digest = None if weights is None else file_sha256(weights_file(weights))
    name = None if weights is None else Path(weights).name
    return Provenance(model.title, name, digest, interval, model.width)
