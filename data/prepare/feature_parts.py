"""The parts that are joined to a frame's features: their names, and the folders of their files.

<feature_dir>/<part>_features/<sub>/<video>.npz   as HERO's and extract_features.py's
<feature_dir>/<folder>/<video>.npz                as the VALUE benchmark's
"""

from pathlib import Path

from utils.errors import UserError

PUBLISHED = ("resnet", "slowfast")  # of HERO's features
PICTURES, CLIPS = ("resnet", "clip-vit"), ("slowfast", "mil-nce")  # what VALUE makes pairs of
_VALUE_FOLDERS = {part: part for part in (*PICTURES, *CLIPS)} | {"mil-nce": "mil-nce-s3d"}
_EXTRACTED_AS = {"clip-vit": "clip"}  # by extract_features.py
_SUFFIX = "_features"


def part_folder(feature_dir: Path, part: str) -> Path | None:
    """Return the folder of a part's files; None: there is none."""
    value_folder, extractor = _VALUE_FOLDERS.get(part, part), extractor_of(part)
    names = (f"{part}{_SUFFIX}", value_folder, f"{extractor}{_SUFFIX}")
    return next(filter(Path.is_dir, map(feature_dir.joinpath, names)), None)


def is_value_folder(folder: Path) -> bool:
    """Return whether a part's folder is named as VALUE's are, not ``<part>_features``."""
    return not folder.name.endswith(_SUFFIX)


def extractor_of(part: str) -> str:
    """Return the name of a part's extractor in extract_features.py."""
    return _EXTRACTED_AS.get(part, part)


def extracted_folder(root: Path, extractor: str, of_value: bool) -> Path:
    """Return the folder of an extractor's files, named as VALUE's or as HERO's."""
    if not of_value:
        return root / f"{extractor}{_SUFFIX}"
    parts = {name: part for part, name in _EXTRACTED_AS.items()}
    part = parts.get(extractor, extractor)
    return root / _VALUE_FOLDERS.get(part, part)


def part_files(folder: Path) -> list[Path]:
    """Return the feature files in a part's folder and in its sub-folders."""
    return sorted([*folder.glob("*.npz"), *folder.glob("*/*.npz")])


def folder_of(file: Path) -> Path:
    """Return the part's folder that holds a feature file."""
    folder, above = file.parent, file.parent.parent
    published = (f"{part}{_SUFFIX}" for part in (*_VALUE_FOLDERS, *_EXTRACTED_AS.values()))
    if folder.name in _VALUE_FOLDERS.values():
        return above if above.name in published else folder
    is_part = above.name in _VALUE_FOLDERS.values() or above.name.endswith(_SUFFIX)
    return above if is_part else folder


def part_name(folder: Path) -> str:
    """Return the part that a folder is named for."""
    parts = {name: part for part, name in _VALUE_FOLDERS.items()}
    return parts.get(folder.name, folder.name.removesuffix(_SUFFIX))


def choose_parts(feature_dir: Path, version: str | None) -> tuple[str, ...]:
    """Return the parts of a version (``clip-vit_slowfast``), in the order in which they are joined.

    Without one, and where it names no parts, the folders decide: ResNet and SlowFast, or else the
    only pair of VALUE's that exists.

    Raises:
        UserError: there are several pairs.
    """
    named = tuple(version.split("_")) if version else ()
    if named and all(part in _VALUE_FOLDERS or part_folder(feature_dir, part) for part in named):
        return named
    found = {part for part in _VALUE_FOLDERS if part_folder(feature_dir, part)}
    pairs = [(first, then) for first in PICTURES for then in CLIPS if {first, then} <= found]
    if PUBLISHED in pairs or not pairs:
        return PUBLISHED
    if len(pairs) > 1:
        names = ", ".join(map("_".join, pairs))
        raise UserError(f"{feature_dir} has the features of {names}: choose by --feat_version")
    return pairs[0]
