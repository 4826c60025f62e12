"""Convert the feature files of one extractor to a feature database.

python scripts/convert_video_db_single_feature.py --feature_dir features/clip-vit \
    --output video_db --dataset yc2

--feature_dir is the folder of the files, named as for collect_video_feature_paths.py, or, with
--feat_version, the folder that holds it. All other options and the output are those of
convert_videodb.py; the list of files is <output>/<dataset>/<version>_info.pkl.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.prepare.feature_parts import CLIPS, PICTURES, part_files, part_folder, part_name
from data.prepare.work import script_parser
from scripts import collect_video_feature_paths, convert_videodb
from utils.errors import UserError, run_main
from utils.files import named_path


def choose_folder(feature_dir: Path, version: str | None) -> tuple[Path, str]:
    """Return the folder that holds the folder of the files, and the version of the files.

    Raises:
        UserError: there are no such files.
    """
    if version is not None and part_folder(feature_dir, version) is not None:
        return feature_dir, version
    folder = feature_dir.absolute()
    root, part = folder.parent, part_name(folder)
    holds_several = any(part_folder(folder, known) for known in (*PICTURES, *CLIPS))
    if holds_several or part_folder(root, part) != folder or not part_files(folder):
        raise UserError(
            f"{feature_dir} holds no files of one kind of features: name their folder, or the one "
            "that holds it and --feat_version"
        )
    return root, part


def parse_arguments(argv: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Parse the command line; return also the options of convert_videodb.py."""
    parser = script_parser(__doc__)
    add = parser.add_argument
    add("--feature_dir", required=True, help="the files of one extractor")
    add("--output", required=True, help="folder of the video databases")
    add("--dataset", required=True, help="folder within it, e.g. yc2")
    add("--feat_version", help="name of the database (default: the folder's)")
    return parser.parse_known_args(argv)


def main(argv: list[str] | None = None) -> None:
    """List the files, and convert them."""
    options, more = parse_arguments(argv)
    root, part = choose_folder(Path(options.feature_dir), options.feat_version)
    version = options.feat_version or part
    to = ["--output", options.output, "--dataset", options.dataset, "--feat_version", version]
    collect_video_feature_paths.main(["--feature_dir", str(root), "--parts", part, *to])
    info = named_path(options.output) / options.dataset / f"{version}_info.pkl"
    convert_videodb.main(["--vfeat_info_file", str(info), *to, *more])


if __name__ == "__main__":
    run_main(main)
