"""Extract ResNet-152, SlowFast or CLIP features from raw video.

python scripts/extract_features.py --video_dir videos --output features \
    --resnet_weights resnet152-394f9c45.pth --slowfast_weights SLOWFAST_8x8_R50.pyth

Feature f covers [f·i, (f+1)·i) seconds of a video, i = --interval; a video has ⌈duration / i⌉ of
them. ResNet-152 (2048 values) gets the frame at the window's centre, SlowFast R50 (2304 values) 32
frames spread evenly over the window. Writes to <output>
  resnet_features/<sub>/<video>.npz, slowfast_features/<sub>/<video>.npz   "features" (T, D) float32
  extraction.json   their networks, weights and interval
  failed.json       {file: {reason, seconds, used}}: videos that cannot be used (used: false), and
                    damaged ones with the number of seconds that are (true)
<sub> is the video's folder below --video_dir. --layout value writes resnet/<video>.npz,
slowfast/<video>.npz, clip-vit/<video>.npz instead, as the VALUE benchmark's are. Existing features
of the same video file are kept. Exit code 0: some video could be used; 2: none.

Supported weights (recognised by the names within the file):
  --resnet_weights    torchvision's resnet152-*.pth, or a Hugging Face model (folder or file) such
                      as microsoft/resnet-152
  --slowfast_weights  Kinetics-400 SLOWFAST_8x8_R50 of PyTorchVideo, or of PySlowFast
  --clip_weights      CLIP or SigLIP (--models clip): a model of the Hugging Face hub such as
                      openai/clip-vit-base-patch32, or its folder. It gets the whole frame at the
                      window's centre, through its own image processor; the others get the centre
                      224 × 224 of the frame scaled to 256. So it runs alone, before or after the
                      others, into the same folder. Its image embedding (512 values) is the CLIP-ViT
                      feature of the VALUE benchmark.
Your own class (--models package.module:Class) needs no weights: see model/extractors/build.py.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils.runtime  # noqa: F401  before PyTorch

# isort: split
from tqdm import tqdm

from data.prepare.extract_videos import choose_videos, extract_videos
from data.prepare.feature_folder import FeatureFolder
from data.prepare.find_videos import FoundVideos, VideoFile, find_videos, shown
from data.prepare.problems import FAILED_FILE
from data.prepare.video_frames import Sampling
from data.prepare.work import positive, work_parser
from data.video_pool import VIDEO_SUFFIXES
from engine.extractors import add_extractors, build_extractors, check_extractors, choose_device
from model.extractors.extractor import FeatureExtractor
from utils.errors import UserError, run_main
from utils.files import check_output, named_path


def extract(
    videos: list[VideoFile],
    extractor: FeatureExtractor,
    folder: FeatureFolder,
    options: argparse.Namespace,
) -> int:
    """Extract and keep the features of videos; return the number of videos."""
    sampling = Sampling(options.interval, extractor.times, whole=extractor.whole)
    sizes = {"batch_size": options.batch_size, "workers": options.workers}
    with tqdm(total=len(videos), unit="video", disable=None) as progress:
        made = 0
        for outcome in extract_videos(videos, extractor, sampling, folder, **sizes):
            made += outcome.used
            progress.update()
    return made


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = work_parser(__doc__)
    add = parser.add_argument
    add("--video_dir", required=True, help="folder of the videos")
    add("--output", required=True, help="folder of the features")
    add_extractors(parser)
    add("--interval", type=positive, default=1.5, help="seconds a feature (default: %(default)s)")
    add(
        "--layout",
        choices=("hero", "value"),
        default="hero",
        help="of the folders: resnet_features/<sub>/<video>.npz, or, as the VALUE benchmark's, "
        "resnet/<video>.npz, slowfast/…, clip-vit/… (default: %(default)s)",
    )
    add("--force", action="store_true", help="extract all again, also those of other weights")
    prune = "delete features of videos that are gone, unless more than half are"
    add("--prune", action="store_true", help=prune)
    add("--prune_most", action="store_true", help="the same, also if more than half or all are")
    return parser.parse_args(argv)


def report_gone(found: FoundVideos, folder: FeatureFolder, options: argparse.Namespace) -> None:
    """Print which features are of videos that are gone, and delete them with --prune."""
    prune = options.prune or options.prune_most
    gone = folder.prune(found, options.prune_most) if prune else folder.gone(found)
    if gone:
        example = shown(next(iter(gone.values()))[0])
        which = f"features of {len(gone)} videos that are gone, such as {example}"
        print(f"deleted {which}" if prune else f"WARNING: {which}: --prune deletes them")


def main(argv: list[str] | None = None) -> None:
    """Extract the features that do not exist yet."""
    options = parse_arguments(argv)
    check_extractors(options)
    check_output(named_path(options.output) / FAILED_FILE)
    found = find_videos(options.video_dir)
    for note in found.notes():
        print(f"{shown(options.video_dir)}: {note}")
    if not (found.videos or found.unusable or options.prune_most):
        raise UserError(f"{options.video_dir} holds no videos ({', '.join(VIDEO_SUFFIXES)})")
    device = choose_device(options.device, options.half, options.workers)
    extractor, made_by = build_extractors(options, options.interval, device)
    of_value = options.layout == "value"
    folder = FeatureFolder(options.output, made_by, options.force, of_value=of_value)
    made, start = 0, time.monotonic()
    try:
        folder.problems.note_unusable(found.unusable)
        wanted = choose_videos(found.videos, folder, options.force)
        report_gone(found, folder, options)
        folder.check(wanted)
        start = time.monotonic()
        made = extract(wanted, extractor, folder, options)
    finally:  # also of an interrupted run
        folder.problems.write()
    seconds = time.monotonic() - start
    existing = len(found.videos) + len(found.unusable) - folder.problems.failures - made
    print(
        f"{shown(options.output)}: {made} videos extracted ({60 * made / seconds:.1f} a minute), "
        f"{existing} existed already, {folder.problems.failures} failed"
    )
    if report := folder.problems.report(found.top):
        print(report)
    if made + existing == 0 < folder.problems.failures:
        raise UserError(f"no video of {options.video_dir} can be used; see {FAILED_FILE}")


if __name__ == "__main__":
    run_main(main)
