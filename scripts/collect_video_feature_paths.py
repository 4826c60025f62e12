"""Pair the per-video feature files of the extractors.

python scripts/collect_video_feature_paths.py --feature_dir features --output video_db \
    --dataset tv [--feat_version clip-vit_slowfast | --parts resnet slowfast]

Reads <feature_dir>/<part>_features/<folder>/<video>.npz (entry "features", one row per frame) of
every part, in the order in which a frame's features join them; or the VALUE benchmark's
<feature_dir>/<part>/<video>.npz, of the parts resnet, slowfast, clip-vit and mil-nce (its folder:
mil-nce-s3d). Without --feat_version and --parts the folders decide: ResNet and SlowFast, or else
the pair that exists. Writes to <output>/<dataset>:
  video_feat_info.pkl   {video: (frames, slowfast file, resnet file, folder)}, frames of the
                        shortest; the files in the opposite order of the parts
  <version>_info.pkl    the same, with --feat_version or of VALUE's folders; this alone, if both, or
                        if the version has other parts than HERO's
  corrupted.json        {video: what is wrong with its files}: such videos are left out
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.prepare.extraction import read_making
from data.prepare.feature_files import FeatureFileError, FeaturePaths, load_features, write_paths
from data.prepare.feature_parts import (
    PUBLISHED,
    choose_parts,
    is_value_folder,
    part_files,
    part_folder,
)
from data.prepare.work import map_in_chunks, work_parser
from utils.errors import UserError, brief, run_main
from utils.files import check_output, modified, named_path, write_json
from utils.logger import LOGGER
from utils.names import MAX_NAME_LENGTH, is_text

NAMED = 3  # videos that a message shows


VideoFiles = tuple[str, dict[str, list[Path]]]  # a video, and its files by part, in order
Checked = tuple[str, FeaturePaths | str]  # a video, and its files or why they cannot be used


def find_files(feature_dir: Path, parts: Sequence[str]) -> list[VideoFiles]:
    """Return all videos with a file of some part, in order of their names.

    Raises:
        UserError: a part's folder is missing, or a part is named twice.
    """
    if len(set(parts)) < len(parts):
        raise UserError(f"--parts {' '.join(parts)} names a part twice; name each once")
    found: dict[str, dict[str, list[Path]]] = defaultdict(lambda: {part: [] for part in parts})
    for part in parts:
        folder = part_folder(feature_dir, part)
        if folder is None:
            raise UserError(
                f"{feature_dir / part}_features does not exist; --feature_dir must hold it, or "
                f"VALUE's folder of that part (--parts {' '.join(parts)})"
            )
        for path in part_files(folder):
            found[path.stem][part].append(path.absolute())
    return sorted(found.items())


def list_names(feature_dir: Path, parts: Sequence[str], version: str | None) -> list[str]:
    """Return the names of the lists of files: HERO's, VALUE's, or both."""
    folders = (part_folder(feature_dir, part) for part in parts)
    is_value = any(folder is not None and is_value_folder(folder) for folder in folders)
    own = [f"{version or '_'.join(parts)}_info.pkl"] if version or is_value else []
    is_another = version and (is_value or tuple(parts) != PUBLISHED)
    return own if is_another else ["video_feat_info.pkl", *own]


def check_files(videos: list[VideoFiles]) -> list[Checked]:
    """Read the files of each video."""
    return [(vid, _problem(vid, found) or _check(found)) for vid, found in videos]


def _check(found: dict[str, list[Path]]) -> FeaturePaths | str:
    paths = [path for (path,) in found.values()]
    frames = []
    for path in paths:
        try:
            frames.append(len(load_features(path)))
        except FeatureFileError as error:
            return f"{path}: {error}"
    sources = (made_of.file for _, made_of in map(read_making, paths) if made_of is not None)
    if len({(file.size, file.sha256) for file in sources}) > 1:
        which = " and ".join(map(str, paths))
        return f"{which} are of different files of the video; extract all kinds again"
    return FeaturePaths(min(frames), tuple(map(str, paths)), paths[0].parent.name)


def _problem(vid: str, found: dict[str, list[Path]]) -> str | None:
    """Return why a video's files cannot be paired; None if they can."""
    if not is_text(vid):
        return f"a file's name must be text (UTF-8) of at most {MAX_NAME_LENGTH} bytes"
    for part, paths in found.items():
        if not paths:
            return f"no {part} file next to {next(filter(None, found.values()))[0]}"
    several = {part: sorted(paths, key=modified) for part, paths in found.items() if paths[1:]}
    if not several:
        return None
    newest = ", ".join(str(paths[-1]) for paths in several.values())
    older = ", ".join(str(path) for paths in several.values() for path in paths[:-1])
    return (
        f"several {' and '.join(several)} files: was the video moved, or has another its name? "
        f"Delete {older}, or else {newest}"
    )


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = work_parser(__doc__)
    add = parser.add_argument
    add("--feature_dir", required=True, help="output of the extractors")
    add("--output", required=True, help="folder of the video databases")
    add("--dataset", required=True, help="folder within it, e.g. tv")
    add("--parts", nargs="+", metavar="PART", help="to join, in order (default: see above)")
    add("--feat_version", help="the parts, joined by _: resnet_slowfast, clip-vit_mil-nce, mil-nce")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Write the lists of files and corrupted.json."""
    options = parse_arguments(argv)
    target, feature_dir = named_path(options.output) / options.dataset, Path(options.feature_dir)
    parts = options.parts or choose_parts(feature_dir, options.feat_version)
    lists = [target / name for name in list_names(feature_dir, parts, options.feat_version)]
    check_output(target / "corrupted.json", *lists)
    videos = find_files(feature_dir, parts)
    checked = list(map_in_chunks(check_files, videos, options.workers, len(videos), chunk=16))
    paths = {vid: files for vid, files in checked if isinstance(files, FeaturePaths)}
    problems = {vid: problem for vid, problem in checked if isinstance(problem, str)}
    if not paths:
        first = next(iter(problems.values()), "there are no .npz files")
        raise UserError(f"{options.feature_dir} has no video with features of all kinds ({first})")
    write_json(target / "corrupted.json", problems, indent=4)
    for file in lists:
        write_paths(file, paths)
        print(f"{file}: {len(paths)} videos; left out: {len(problems)}")
    if problems:
        first = "; ".join(f"{brief(vid)}: {why}" for vid, why in [*problems.items()][:NAMED])
        LOGGER.warning("%d videos are left out, see corrupted.json (%s)", len(problems), first)


if __name__ == "__main__":
    run_main(main)
