"""The networks that make features of films, as options name them."""

import argparse
from pathlib import Path

import torch
from torch import nn

from data.prepare.extraction import Provenance
from model.extractors.build import EXTRACTORS, build_extractor
from model.extractors.extractor import FeatureExtractor
from model.extractors.weights import file_sha256
from utils.errors import UserError
from utils.tensor_files import weights_file


def add_extractors(parser: argparse.ArgumentParser) -> None:
    """Add the options that name networks, their weights, and how they compute."""
    parser.add_argument(
        "--models", nargs="+", choices=EXTRACTORS, default=list(EXTRACTORS), help="which to run"
    )
    for name in EXTRACTORS:
        parser.add_argument(f"--{name}_weights", help="file of weights: see above")
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


def check_extractors(options: argparse.Namespace) -> None:
    """Refuse networks that are untrained though nobody asked for that.

    Raises:
        UserError: neither weights nor ``--random_weights`` are given; says where weights are. Or a
            number is too small.
    """
    if options.batch_size < 1:
        raise UserError("--batch_size must be at least 1")
    for name in options.models:
        if getattr(options, f"{name}_weights") is None and not options.random_weights:
            raise UserError(
                f"--{name}_weights is missing: download {EXTRACTORS[name].source} on a "
                "machine with a network and give its path (--help lists other files); "
                "--random_weights tries the commands out with an untrained network"
            )


def choose_device(name: str | None, half: bool, workers: int) -> torch.device:
    """The device, and threads that leave a core to the decoders.

    Raises:
        UserError: there is no such device, or --half is asked of a CPU.
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
    """The networks, and what will have made the features of each."""
    models, made_by = {}, {}
    for name in dict.fromkeys(options.models):
        weights = getattr(options, f"{name}_weights")
        models[name] = build_extractor(name, weights, device, options.half)
        made_by[name] = _describe(models[name], weights, interval)
        if weights is None:
            print(f"WARNING: {name} is untrained (--random_weights): its features mean nothing")
    return FeatureExtractor(models, device), made_by


def _describe(model: nn.Module, weights: str | None, interval: float) -> Provenance:
    """What will have made the features of a network."""
    if weights is None:
        return Provenance(model.title, None, None, interval, model.width)
    digest = file_sha256(weights_file(weights))
    return Provenance(model.title, Path(weights).name, digest, interval, model.width)
