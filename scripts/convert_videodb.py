"""Convert per-video feature files, or a feature database, to a feature database.

python scripts/convert_videodb.py --vfeat_info_file video_db/tv/video_feat_info.pkl \
    --output video_db --dataset tv --frame_length 1.5 [--compress]
python scripts/convert_videodb.py --vfeat_db video_db/tv --output video_db_half --dataset tv \
    --frame_length 1.5 --format safetensors --half

Writes <output>/<dataset>/<feat_version>_<frame_length>[_compressed|_safetensors] and, next to it,
id2nframe.json; or id2nframe_<frame_length>.json where that exists already, or where the files are
in folders named as the VALUE benchmark's. Of a video whose versions differ it has the least number.
The configuration names <output>/<dataset>; if that holds LMDB and safetensors files, LMDB is read.
meta.json holds the provenance of the features, as recorded by extract_features.py:
{"extraction": {extractor: {model, weights, weights_sha256, interval, width}}, "interval", "width",
"dtype", "parts": {extractor: width}, in the order in which a frame's features join them}.
Videos whose features cannot be used, or are of another width than most, are listed in
failed_<database>.pkl ({video: reason}).
"""

import argparse
import math
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.prepare.extraction import META_FILE, read_feature_meta
from data.prepare.feature_files import FeatureFileError, read_pickle, write_pickle
from data.prepare.feature_parts import PUBLISHED
from data.prepare.feature_sources import FeatureSource, FileFeatures, StoredFeatures
from data.prepare.work import add_force, add_frame_length, map_in_chunks, work_parser
from data.stores.build_folder import is_database
from data.stores.feature_codecs import FeatureCodec, FeatureFormat
from data.stores.lmdb_io import FeatureDb, FeatureDbWriter, feature_db_path
from data.stores.records import Id
from utils.errors import UserError, run_main
from utils.files import check_output, modified, named_path, write_json
from utils.logger import LOGGER

VERSION = "_".join(PUBLISHED)
NAMED = 3  # videos that a message shows
FAILED = dict[Id, str]  # videos that are left out, and why


@dataclass(frozen=True, slots=True)
class EncodedClip:
    """A clip (or whole video) as stored."""

    vid: str
    num_frames: int
    width: int
    value: Any  # of the codec


Converted = tuple[str, list[EncodedClip] | str]  # a video, and its clips or why there are none


@dataclass(frozen=True)
class Converter:
    """Loads, cuts and encodes the features of videos."""

    source: FeatureSource
    codec: FeatureCodec
    precision: np.dtype
    clip_frames: int | None  # cut videos into clips of this many frames; None: keep them whole
    width: int | None = None  # of the features; others cannot be used. None: any

    def __call__(self, vids: list[str]) -> list[Converted]:
        """Return the stored form of each video."""
        return [self._convert(vid) for vid in vids]

    def _convert(self, vid: str) -> Converted:
        try:
            features = self._cast(self.source.load(vid))
        except FeatureFileError as error:
            return vid, str(error)
        size = self.clip_frames or len(features)
        clips = []
        for number, name in enumerate(clip_names(vid, len(features), self.clip_frames)):
            part = features[number * size : (number + 1) * size]
            clips.append(EncodedClip(name, len(part), part.shape[1], self.codec.encode(part)))
        return vid, clips

    def _cast(self, features: np.ndarray) -> np.ndarray:
        width = features.shape[1]
        if self.width not in (None, width):
            raise FeatureFileError(f"{width} values a frame, most videos have {self.width}")
        with np.errstate(over="ignore"):
            cast = features.astype(self.precision)
        if not np.isfinite(cast).all():
            raise FeatureFileError("some values are too large for --half")
        return cast


def clip_names(vid: str, num_frames: int, clip_frames: int | None) -> list[str]:
    """Return ``<vid>.0``, ``<vid>.1``, … or, uncut, ``<vid>``."""
    if clip_frames is None:
        return [vid]
    return [f"{vid}.{n}" for n in range(math.ceil(num_frames / clip_frames))]


def frames_per_clip(clip_interval: float | None, frame_length: float) -> int | None:
    """Return the frames of a clip of ``clip_interval`` seconds; None if videos stay whole.

    Raises:
        UserError: a clip would not hold whole frames.
    """
    if clip_interval is None or clip_interval == -1:
        return None
    frames = clip_interval / frame_length
    if not 1 <= frames < math.inf or frames != int(frames):
        raise UserError(
            f"--clip_interval {clip_interval:g} is no multiple of --frame_length {frame_length:g}"
        )
    return int(frames)


def open_source(options: argparse.Namespace) -> FeatureSource:
    """Open the features that the command line names.

    Raises:
        UserError: it names none or both kinds, or they cannot be opened.
    """
    if (options.vfeat_info_file is None) == (options.vfeat_db is None):
        raise UserError("give either --vfeat_info_file or --vfeat_db to convert from")
    if options.vfeat_info_file is not None:
        return FileFeatures(options.vfeat_info_file, options.frame_length)
    variant = (options.feat_version or VERSION, options.frame_length, options.compressed_db)
    return StoredFeatures(FeatureDb(options.vfeat_db, *variant))


class VideoDbTask:
    """The database to make, by the command line.

    Raises:
        UserError: options contradict each other, or the source cannot be opened.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._folder = named_path(options.output) / options.dataset
        self._format: FeatureFormat = options.format
        self._source = open_source(options)
        version = options.feat_version or self._source.version
        self._version = (version, options.frame_length, options.compress)
        self._path = feature_db_path(self._folder, *self._version, self._format)
        if self._path.resolve() == self._source.path.resolve():
            raise UserError(f"{self._path} would replace itself; choose another --output")
        self._precision = np.dtype(np.float16 if options.half else np.float32)
        self._clip_frames = frames_per_clip(options.clip_interval, options.frame_length)
        self._workers = options.workers

    def is_finished(self) -> bool:
        """Return whether the database exists, intact, as :meth:`build` would write it.

        Raises:
            UserError: one exists that was made otherwise, or from older files.
        """
        if not is_database(self._path):
            return False
        try:
            db = FeatureDb(self._folder, *self._version, format_=self._format)
        except UserError as error:
            print(f"building {self._path} again: {error}")
            return False
        if self._differs(db):
            raise UserError(
                f"{db.path} exists already, made from other features or with other options; "
                "pass --force to build it again, or choose another --dataset"
            )
        print(f"{db.path} is made already ({len(db)} records)")
        return True

    def _differs(self, db: FeatureDb) -> bool:
        file = _failed_file(db.path)
        failed = read_pickle(file, FAILED) if file.exists() else {}
        expected = {
            name
            for vid, frames in self._source.frames.items()
            if vid not in failed
            for name in clip_names(vid, frames, self._clip_frames)
        }
        return (
            min(map(modified, db.path.iterdir())) < self._source.modified()
            or read_feature_meta(db.path).extraction not in (None, self._source.extraction)
            or db.stored_dtype != self._precision
            or set(db.keys()) != expected
        )

    def build(self, recount: bool) -> None:
        """Write the database, and list videos that cannot be used.

        Args:
            recount: let new numbers of frames replace those in id2nframe.json.

        Raises:
            UserError: no video can be converted, or their frames contradict id2nframe.json.
        """
        check_output(_failed_file(self._path))
        try:
            self._write(recount)
        except _MixedWidthsError as mixed:  # rare, and known at the end: again, without them
            self._write(recount, mixed.usual)

    def _write(self, recount: bool, width: int | None = None) -> None:
        failed, vids = {}, list(self._source.frames)
        widths: Counter[int] = Counter()
        with FeatureDbWriter(
            self._folder,
            *self._version,
            force=True,
            recount=recount,
            format_=self._format,
            own_counts=self._source.own_counts,
        ) as db:
            convert = Converter(self._source, db.codec, self._precision, self._clip_frames, width)
            for vid, clips in map_in_chunks(convert, vids, self._workers, len(vids), chunk=4):
                if isinstance(clips, str):
                    failed[vid] = clips
                    continue
                for clip in clips:
                    db.put_encoded(clip.vid, clip.num_frames, clip.value)
                widths.update({clip.width for clip in clips})
            if len(failed) == len(vids):
                reasons = "; ".join(f"{vid}: {problem}" for vid, problem in failed.items())
                raise UserError(f"no video of {self._source.path} can be used ({reasons[:500]})")
            if len(widths) > 1:
                raise _MixedWidthsError(widths.most_common(1)[0][0])
            used = next(vid for vid in vids if vid not in failed)
            write_json(db.folder / META_FILE, self._meta(next(iter(widths)), used), indent=2)
            _failed_file(db.path).unlink(missing_ok=True)
            if failed:
                write_pickle(_failed_file(db.path), failed)
        print(f"{db.path}: {len(vids) - len(failed)} videos; failed: {len(failed)}")
        for vid, problem in [*failed.items()][:NAMED]:
            LOGGER.warning("%s is left out: %s", vid, problem)

    def _meta(self, width: int, vid: str) -> dict:
        meta = {"extraction": self._source.extraction, "parts": self._source.widths(vid)}
        meta = {name: value for name, value in meta.items() if value is not None}
        return {**meta, "interval": self._version[1], "width": width, "dtype": self._precision.name}


class _MixedWidthsError(Exception):
    """Videos differ in width."""

    def __init__(self, usual: int) -> None:
        self.usual = usual  # width of most of them


def _failed_file(database: Path) -> Path:
    return database.with_name(f"failed_{database.name}.pkl")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = work_parser(__doc__)
    add = parser.add_argument
    add("--vfeat_info_file", help="output of collect_video_feature_paths.py")
    add("--vfeat_db", help="or a feature database to convert, e.g. video_db/tv")
    add("--compressed_db", action="store_true", help="--vfeat_db is of the compressed variant")
    add("--output", required=True, help="folder of the video databases")
    add("--dataset", required=True, help="folder within it, e.g. tv")
    add_frame_length(parser)
    add(
        "--format",
        choices=get_args(FeatureFormat),
        default="lmdb",
        help="lmdb, as published, or safetensors files (default: %(default)s)",
    )
    add("--compress", action="store_true", help="LMDB that is smaller, but slower to read")
    add("--half", action="store_true", help="store half precision")
    add(
        "--clip_interval",
        type=float,
        help="cut videos into clips <video>.0, <video>.1, … of so many seconds (HowTo100M: 60); "
        "-1: keep them whole",
    )
    add(
        "--feat_version",
        help="kind of the features, vfeat_version in training (default: the parts that "
        f"--vfeat_info_file joins; of --vfeat_db {VERSION})",
    )
    add_force(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Build the database unless it is made already."""
    options = parse_arguments(argv)
    task = VideoDbTask(options)
    if options.force or not task.is_finished():
        task.build(recount=options.force)


if __name__ == "__main__":
    run_main(main)
