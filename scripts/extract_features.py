"""Extract ResNet-152 and SlowFast features from raw video.

python scripts/extract_features.py --video_dir videos --output features \
    --resnet_weights resnet152-394f9c45.pth --slowfast_weights SLOWFAST_8x8_R50.pyth

Feature f covers [f·i, (f+1)·i) seconds of a video, i = --interval; a video has ⌈duration / i⌉ of
them. ResNet-152 (2048 values) sees the frame at the window's centre, SlowFast R50 (2304 values) 32
frames spread evenly over the window. Writes to <output>
  resnet_features/<sub>/<video>.npz, slowfast_features/<sub>/<video>.npz   "features" (T, D) float32
  extraction.json   which networks, weights and interval made them
  failed.json       {file: reason} of videos that cannot be decoded
<sub> is the video's folder below --video_dir. What is there already is not made again.

Weights that are known (by the names within the file):
  --resnet_weights    torchvision's resnet152-*.pth, or a Hugging Face model (folder or file) such
                      as microsoft/resnet-152
  --slowfast_weights  Kinetics-400 SLOWFAST_8x8_R50 of PyTorchVideo, or of PySlowFast
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils.runtime  # noqa: F401  before PyTorch

# isort: split
import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from data.prepare.extraction import FAILED_FILE, FeatureFolder, Provenance, VideoFile, find_videos
from data.prepare.video_frames import Sampling
from data.prepare.video_windows import decode_videos
from data.prepare.work import positive, work_parser
from model.extractors.build import EXTRACTORS, build_extractor
from model.extractors.weights import file_sha256
from utils.errors import UserError, run_main
from utils.files import check_output, named_path
from utils.tensor_files import weights_file


class FeatureExtractor:
    """Runs the networks over windows of frames.

    Args:
        models: {extractor: network}, all of which see the same windows.
        device: where they compute.
    """

    def __init__(self, models: dict[str, nn.Module], device: torch.device) -> None:
        self._models = models
        self._device = device
        self.times = tuple(sorted({t for model in models.values() for t in model.frame_times}))
        self._places = {
            name: [self.times.index(t) for t in model.frame_times] for name, model in models.items()
        }

    @torch.inference_mode()
    def __call__(self, frames: np.ndarray) -> dict[str, np.ndarray]:
        """{extractor: (B, D) float32} of windows (B, K, S, S, 3) uint8."""
        pixels = torch.from_numpy(frames).to(self._device)
        return {
            name: model(pixels[:, self._places[name]]).float().cpu().numpy()
            for name, model in self._models.items()
        }


def require_weights(options: argparse.Namespace) -> None:
    """Untrained networks must be asked for.

    Raises:
        UserError: neither weights nor ``--random_weights`` are given; says where weights are.
    """
    for name in options.models:
        if getattr(options, f"{name}_weights") is None and not options.random_weights:
            raise UserError(
                f"--{name}_weights is missing: download {EXTRACTORS[name].source} on a "
                "machine with a network and give its path (--help lists other files); "
                "--random_weights tries the commands out with an untrained network"
            )


def describe(model: nn.Module, weights: str | None, interval: float) -> Provenance:
    """What will have made the features of a network."""
    if weights is None:
        return Provenance(model.title, None, None, interval, model.width)
    digest = file_sha256(weights_file(weights))
    return Provenance(model.title, Path(weights).name, digest, interval, model.width)


def extract(
    videos: list[VideoFile],
    extractor: FeatureExtractor,
    folder: FeatureFolder,
    options: argparse.Namespace,
) -> int:
    """Extract and keep the features of videos; returns how many could not be used."""
    parts: dict[int, list[dict[str, np.ndarray]]] = {}
    failed = 0
    sampling = Sampling(options.interval, extractor.times)
    pieces = decode_videos(videos, sampling, options.batch_size, options.workers)
    with tqdm(total=len(videos), unit="video", disable=None) as progress:
        for piece in pieces:
            if piece.frames is not None:
                parts.setdefault(piece.place, []).append(extractor(piece.frames))
                continue
            video, of_video = videos[piece.place], parts.pop(piece.place, [])
            problem = piece.problem
            if problem is not None and not problem.used:
                reason = problem.reason
            else:
                reason = _keep(folder, video, of_video)
                if problem is not None:
                    progress.write(f"WARNING: {video.path}: {problem.reason}", file=sys.stderr)
            if reason is not None:
                folder.fail(video, reason)
                failed += 1
            progress.update()
    return failed


def _keep(
    folder: FeatureFolder, video: VideoFile, parts: list[dict[str, np.ndarray]]
) -> str | None:
    """Write a video's features; what is wrong with them, if anything."""
    features = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if not all(np.isfinite(values).all() for values in features.values()):
        return "its features are not finite; try without --half"
    folder.write(video, features)
    return None


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


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = work_parser(__doc__)
    parser.add_argument("--video_dir", required=True, help="folder of the videos")
    parser.add_argument("--output", required=True, help="folder of the features")
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
        "--interval", type=positive, default=1.5, help="seconds a feature (default: %(default)s)"
    )
    parser.add_argument(
        "--batch_size", type=int, default=8, help="windows at once (default: %(default)s)"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, … (default: the GPU if there is one)")
    parser.add_argument("--half", action="store_true", help="compute in half precision (GPU)")
    parser.add_argument(
        "--force", action="store_true", help="extract all anew, also what other weights made"
    )
    options = parser.parse_args(argv)
    if options.batch_size < 1:
        raise UserError("--batch_size must be at least 1")
    return options


def main(argv: list[str] | None = None) -> None:
    """Extract what is not there yet."""
    options = parse_arguments(argv)
    require_weights(options)
    check_output(named_path(options.output) / FAILED_FILE)
    videos = find_videos(options.video_dir)
    device = choose_device(options.device, options.half, options.workers)
    models, made_by = {}, {}
    for name in dict.fromkeys(options.models):
        weights = getattr(options, f"{name}_weights")
        models[name] = build_extractor(name, weights, device, options.half)
        made_by[name] = describe(models[name], weights, options.interval)
        if weights is None:
            print(f"WARNING: {name} is untrained (--random_weights): its features mean nothing")
    folder = FeatureFolder(options.output, made_by, options.force)
    wanted = [video for video in videos if options.force or not folder.has(video)]
    folder.check(wanted)
    start = time.monotonic()
    failed = extract(wanted, FeatureExtractor(models, device), folder, options)
    folder.write_failed()
    made, seconds = len(wanted) - failed, time.monotonic() - start
    print(
        f"{options.output}: {made} videos extracted ({made / seconds:.2f} a second), "
        f"{len(videos) - len(wanted)} were there already, {failed} failed"
    )
    if failed:
        print(f"why they failed: {folder.folder / FAILED_FILE}")
    if failed == len(videos):
        raise UserError(f"no video of {options.video_dir} can be used; see {FAILED_FILE}")


if __name__ == "__main__":
    run_main(main)
