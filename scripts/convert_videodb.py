"""Convert per-video feature files to a feature database.

python scripts/convert_videodb.py --vfeat_info_file video_db/tv/video_feat_info.pkl \
    --output video_db --dataset tv --frame_length 1.5 [--compress]

Writes <output>/<dataset>/resnet_slowfast_<frame_length>[_compressed] and id2nframe.json beside it.
Its meta.json says what made the features, as far as extract_features.py recorded it:
{"extraction": {extractor: {model, weights, weights_sha256, interval, width}}, "interval", "width",
"dtype"}.
Videos whose files cannot be used are listed in failed_<database>.pkl ({video: reason}).
"""

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.extraction import META_FILE, database_extraction, extraction_of
from data.feature_files import (
    FeatureFileError,
    FeaturePaths,
    load_joined,
    read_paths,
    read_pickle,
    write_pickle,
)
from data.lmdb_io import FeatureCodec, FeatureDb, FeatureDbWriter, feature_db_path
from data.prepare import add_force, add_frame_length, map_in_chunks, work_parser
from utils.errors import UserError, run_main
from utils.files import write_json

VERSION = "resnet_slowfast"


@dataclass(frozen=True, slots=True)
class EncodedClip:
    """A clip (or whole video) as stored."""

    vid: str
    num_frames: int
    width: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Converted:
    """A video; ``problem`` says why there are no clips."""

    vid: str
    clips: list[EncodedClip]
    problem: str | None


class Converter:
    """Join, cut and encode the features of videos.

    Args:
        codec: of the database.
        precision: of the database.
        clip_frames: cut videos into clips of this many frames; None keeps them whole.
    """

    def __init__(self, codec: FeatureCodec, precision: np.dtype, clip_frames: int | None) -> None:
        self._codec = codec
        self._precision = precision
        self._clip_frames = clip_frames

    def __call__(self, videos: list[tuple[str, FeaturePaths]]) -> list[Converted]:
        """The stored form of each video."""
        return [self._convert(vid, paths) for vid, paths in videos]

    def _convert(self, vid: str, paths: FeaturePaths) -> Converted:
        try:
            features = self._cast(load_joined(paths))
        except FeatureFileError as error:
            return Converted(vid, [], str(error))
        names = clip_names(vid, len(features), self._clip_frames)
        size = self._clip_frames or len(features)
        parts = [features[at : at + size] for at in range(0, len(features), size)]
        clips = [
            EncodedClip(name, *part.shape, self._codec.encode(part))
            for name, part in zip(names, parts, strict=True)
        ]
        return Converted(vid, clips, None)

    def _cast(self, features: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            cast = features.astype(self._precision)
        if not np.isfinite(cast).all():
            raise FeatureFileError("some values are too large for --half")
        return cast


def clip_names(vid: str, num_frames: int, clip_frames: int | None) -> list[str]:
    """``<vid>.0``, ``<vid>.1``, … or, uncut, ``<vid>``."""
    if clip_frames is None:
        return [vid]
    return [f"{vid}.{n}" for n in range(math.ceil(num_frames / clip_frames))]


def frames_per_clip(clip_interval: float | None, frame_length: float) -> int | None:
    """Frames of a clip of ``clip_interval`` seconds; None if videos stay whole.

    Raises:
        UserError: a clip would not hold whole frames.
    """
    if clip_interval is None:
        return None
    frames = clip_interval / frame_length
    if frames < 1 or frames != int(frames):
        raise UserError(
            f"--clip_interval {clip_interval:g} is no multiple of --frame_length {frame_length:g}"
        )
    return int(frames)


class VideoDbTask:
    """What the command line asks for."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._folder = Path(options.output) / options.dataset
        self._info_file = Path(options.vfeat_info_file)
        self._paths = read_paths(self._info_file)
        self._version = (VERSION, options.frame_length, options.compress)
        self._precision = np.dtype(np.float16 if options.half else np.float32)
        self._clip_frames = frames_per_clip(options.clip_interval, options.frame_length)
        files = (file for paths in self._paths.values() for file in (paths.resnet, paths.slowfast))
        self._extraction = extraction_of(files, options.frame_length)
        self._workers = options.workers

    def is_finished(self) -> bool:
        """Whether the database is there, whole, with just what :meth:`build` would write.

        Raises:
            UserError: one is there that was made otherwise, or from older files.
        """
        path = feature_db_path(self._folder, *self._version)
        if not (path / "data.mdb").exists():
            return False
        try:
            db = FeatureDb(self._folder, *self._version)
        except UserError as error:
            print(f"building {path} anew: {error}")
            return False
        failed_file = _failed_file(db.path)
        failed = read_pickle(failed_file) if failed_file.exists() else {}
        expected = {
            name
            for vid, paths in self._paths.items()
            if vid not in failed
            for name in clip_names(vid, paths.frames, self._clip_frames)
        }
        older = (db.path / "data.mdb").stat().st_mtime < self._info_file.stat().st_mtime
        changed = older or database_extraction(db.path) not in (None, self._extraction)
        if changed or db.stored_dtype != self._precision or set(db.keys()) != expected:
            raise UserError(
                f"{db.path} is there already, made from other feature files or with other options; "
                "pass --force to build it anew, or choose another --dataset"
            )
        print(f"{db.path} is made already ({len(db)} records)")
        return True

    def build(self, recount: bool) -> None:
        """Write the database.

        Args:
            recount: let new numbers of frames replace those in id2nframe.json.

        Raises:
            UserError: no video can be converted, or their frames contradict id2nframe.json.
        """
        failed, widths = {}, set()
        with FeatureDbWriter(self._folder, *self._version, force=True, recount=recount) as db:
            convert = Converter(db.codec, self._precision, self._clip_frames)
            items = self._paths.items()
            for video in map_in_chunks(convert, items, self._workers, len(items), chunk=4):
                if video.problem is not None:
                    failed[video.vid] = video.problem
                for clip in video.clips:
                    db.put_encoded(clip.vid, clip.num_frames, clip.value)
                    widths.add(clip.width)
            if len(failed) == len(self._paths):
                reasons = "; ".join(f"{vid}: {problem}" for vid, problem in failed.items())
                raise UserError(f"no video of {self._info_file} can be used ({reasons[:500]})")
            write_json(db.folder / META_FILE, self._meta(widths), indent=2)
            _failed_file(db.path).unlink(missing_ok=True)
            if failed:
                write_pickle(_failed_file(db.path), failed)
        print(f"{db.path}: {len(items) - len(failed)} videos; failed: {len(failed)}")

    def _meta(self, widths: set[int]) -> dict:
        if len(widths) > 1:
            raise UserError(
                f"features of {self._info_file} are {' and '.join(map(str, sorted(widths)))} "
                "values wide; extract them all with the same networks"
            )
        extraction = {} if self._extraction is None else {"extraction": self._extraction}
        return extraction | {
            "interval": self._version[1],
            "width": widths.pop(),
            "dtype": self._precision.name,
        }


def _failed_file(database: Path) -> Path:
    return database.with_name(f"failed_{database.name}.pkl")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = work_parser(__doc__)
    parser.add_argument(
        "--vfeat_info_file", required=True, help="what collect_video_feature_paths.py wrote"
    )
    parser.add_argument("--output", required=True, help="folder of the video databases")
    parser.add_argument("--dataset", required=True, help="folder within it, e.g. tv")
    add_frame_length(parser)
    parser.add_argument("--compress", action="store_true", help="smaller, but slower to read")
    parser.add_argument("--half", action="store_true", help="store half precision")
    parser.add_argument(
        "--clip_interval",
        type=float,
        help="cut videos into clips <video>.0, <video>.1, … of so many seconds (HowTo100M: 60)",
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
