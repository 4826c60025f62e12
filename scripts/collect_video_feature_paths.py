"""Pair the per-video feature files of the two extractors.

python scripts/collect_video_feature_paths.py --feature_dir features --output video_db --dataset tv

Reads <feature_dir>/resnet_features/<folder>/<video>.npz and
<feature_dir>/slowfast_features/<folder>/<video>.npz (entry "features", one row per frame) and
writes to <output>/<dataset>:
  video_feat_info.pkl   {video: (frames, slowfast file, resnet file, folder)}, frames of the shorter
  corrupted.json        {video: what is wrong with its files}: such videos are left out
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.prepare.feature_files import FeatureFileError, FeaturePaths, load_features, write_paths
from data.prepare.work import map_in_chunks, work_parser
from utils.errors import UserError, run_main
from utils.files import write_json

EXTRACTORS = ("slowfast", "resnet")


@dataclass(frozen=True, slots=True)
class VideoFiles:
    """The files found for a video: (extractor, path)."""

    vid: str
    found: list[tuple[str, Path]]


@dataclass(frozen=True, slots=True)
class Checked:
    """A video whose files have been read; one of ``paths`` and ``problem`` is None."""

    vid: str
    paths: FeaturePaths | None
    problem: str | None


def find_files(feature_dir: Path) -> list[VideoFiles]:
    """All videos that an extractor has a file of, in order of their names.

    Raises:
        UserError: an extractor's folder is missing.
    """
    found: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for extractor in EXTRACTORS:
        folder = feature_dir / f"{extractor}_features"
        if not folder.is_dir():
            raise UserError(f"{folder} does not exist; --feature_dir must hold it")
        for path in sorted(folder.glob("*/*.npz")):
            found[path.stem].append((extractor, path.absolute()))
    return [VideoFiles(vid, found[vid]) for vid in sorted(found)]


def check_files(videos: list[VideoFiles]) -> list[Checked]:
    """Read the files of each video."""
    return list(map(_check, videos))


def _check(video: VideoFiles) -> Checked:
    extractors = [extractor for extractor, _ in video.found]
    paths = dict(video.found)
    problem = next(_problems(video, extractors), None)
    if problem is not None:
        return Checked(video.vid, None, problem)
    frames = []
    for path in paths.values():
        try:
            frames.append(len(load_features(path)))
        except FeatureFileError as error:
            return Checked(video.vid, None, f"{path}: {error}")
    slowfast, resnet = str(paths["slowfast"]), str(paths["resnet"])
    folder = paths["resnet"].parent.name
    return Checked(video.vid, FeaturePaths(min(frames), slowfast, resnet, folder), None)


def _problems(video: VideoFiles, extractors: list[str]) -> Iterator[str]:
    for extractor in EXTRACTORS:
        if extractors.count(extractor) == 0:
            yield f"no {extractor} file beside {video.found[0][1]}"
        if extractors.count(extractor) > 1:
            yield f"several {extractor} files: {', '.join(str(path) for _, path in video.found)}"


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = work_parser(__doc__)
    parser.add_argument("--feature_dir", required=True, help="what the extractors wrote")
    parser.add_argument("--output", required=True, help="folder of the video databases")
    parser.add_argument("--dataset", required=True, help="folder within it, e.g. tv")
    # The original's: both scripts take it, but it names only what convert_videodb.py writes.
    parser.add_argument("--feat_version", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Write video_feat_info.pkl and corrupted.json."""
    options = parse_arguments(argv)
    target = Path(options.output) / options.dataset
    videos = find_files(Path(options.feature_dir))
    checked = list(map_in_chunks(check_files, videos, options.workers, len(videos), chunk=16))
    paths = {video.vid: video.paths for video in checked if video.paths is not None}
    problems = {video.vid: video.problem for video in checked if video.problem is not None}
    if not paths:
        first = next(iter(problems.values()), "there are no .npz files")
        raise UserError(f"{options.feature_dir} has no video with features of both kinds ({first})")
    write_json(target / "corrupted.json", problems, indent=4)
    write_paths(target / "video_feat_info.pkl", paths)
    print(f"{target}/video_feat_info.pkl: {len(paths)} videos; left out: {len(problems)}")


if __name__ == "__main__":
    run_main(main)
