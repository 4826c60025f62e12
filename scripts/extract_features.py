"""Extract ResNet-152 and SlowFast features from raw video.

python scripts/extract_features.py --video_dir videos --output features \
    --resnet_weights resnet152-394f9c45.pth --slowfast_weights SLOWFAST_8x8_R50.pyth

Feature f covers [f·i, (f+1)·i) seconds of a video, i = --interval; a video has ⌈duration / i⌉ of
them. ResNet-152 (2048 values) sees the frame at the window's centre, SlowFast R50 (2304 values) 32
frames spread evenly over the window. Writes to <output>
  resnet_features/<sub>/<video>.npz, slowfast_features/<sub>/<video>.npz   "features" (T, D) float32
  extraction.json   which networks, weights and interval made them
  failed.json       {file: {reason, seconds, used}}: videos that cannot be used (used: false), and
                    damaged ones, so many seconds of which are (true)
<sub> is the video's folder below --video_dir. What is there already, of the same video file, is not
made again. Exit code 0: some video could be used; 2: none.

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
import torch
from torch import nn
from tqdm import tqdm

from data.prepare.extract_videos import choose_videos, extract_videos
from data.prepare.extraction import Provenance
from data.prepare.feature_folder import FAILED_FILE, FeatureFolder
from data.prepare.video_files import FoundVideos, VideoFile, find_videos, shown
from data.prepare.video_frames import Sampling
from data.prepare.work import positive, work_parser
from data.video_pool import VIDEO_SUFFIXES
from model.extractors.build import EXTRACTORS, build_extractor
from model.extractors.extractor import FeatureExtractor
from model.extractors.weights import file_sha256
from utils.errors import UserError, run_main
from utils.files import check_output, named_path
from utils.tensor_files import weights_file


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
    """Extract and keep the features of videos; returns of how many."""
    sampling = Sampling(options.interval, extractor.times)
    sizes = {"batch_size": options.batch_size, "workers": options.workers}
    with tqdm(total=len(videos), unit="video", disable=None) as progress:
        made = 0
        for outcome in extract_videos(videos, extractor, sampling, folder, **sizes):
            made += outcome.used
            progress.update()
    return made


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
    parser.add_argument(
        "--prune",
        action="store_true",
        help="drop features of videos that are gone, unless more than half are",
    )
    parser.add_argument(
        "--prune_most", action="store_true", help="the same, also if more than half or all are gone"
    )
    options = parser.parse_args(argv)
    if options.batch_size < 1:
        raise UserError("--batch_size must be at least 1")
    return options


def build_extractors(
    options: argparse.Namespace, device: torch.device
) -> tuple[FeatureExtractor, dict[str, Provenance]]:
    """The networks, and what will have made the features of each."""
    models, made_by = {}, {}
    for name in dict.fromkeys(options.models):
        weights = getattr(options, f"{name}_weights")
        models[name] = build_extractor(name, weights, device, options.half)
        made_by[name] = describe(models[name], weights, options.interval)
        if weights is None:
            print(f"WARNING: {name} is untrained (--random_weights): its features mean nothing")
    return FeatureExtractor(models, device), made_by


def tell_gone(found: FoundVideos, folder: FeatureFolder, options: argparse.Namespace) -> None:
    """Say which features are of videos that are gone; with --prune they go, too."""
    prune = options.prune or options.prune_most
    gone = folder.prune(found, options.prune_most) if prune else folder.gone(found)
    if gone:
        example = shown(next(iter(gone.values()))[0])
        which = f"features of {len(gone)} videos that are gone, such as {example}"
        print(f"dropped {which}" if prune else f"WARNING: {which}: --prune drops them")


def main(argv: list[str] | None = None) -> None:
    """Extract what is not there yet."""
    options = parse_arguments(argv)
    require_weights(options)
    check_output(named_path(options.output) / FAILED_FILE)
    found = find_videos(options.video_dir)
    for note in found.notes():
        print(f"{options.video_dir}: {note}")
    if not (found.videos or found.unusable or options.prune_most):
        raise UserError(f"{options.video_dir} holds no videos ({', '.join(VIDEO_SUFFIXES)})")
    device = choose_device(options.device, options.half, options.workers)
    extractor, made_by = build_extractors(options, device)
    folder = FeatureFolder(options.output, made_by, options.force)
    made, start = 0, time.monotonic()
    try:
        folder.note_unusable(found)
        wanted = choose_videos(found.videos, folder, options.force)
        tell_gone(found, folder, options)
        folder.check(wanted)
        start = time.monotonic()
        made = extract(wanted, extractor, folder, options)
    finally:  # also of a run that is broken off
        folder.write_failed()
    seconds = time.monotonic() - start
    there = len(found.videos) + len(found.unusable) - folder.failures - made
    print(
        f"{options.output}: {made} videos extracted ({60 * made / seconds:.1f} a minute), "
        f"{there} were there already, {folder.failures} failed"
    )
    if report := folder.report(found.top):
        print(report)
    if made + there == 0 < folder.failures:
        raise UserError(f"no video of {options.video_dir} can be used; see {FAILED_FILE}")


if __name__ == "__main__":
    run_main(main)
