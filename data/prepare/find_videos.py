"""The videos below a folder, and the files there that are ignored."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data.prepare.folder_files import list_files, shown
from data.video_pool import VIDEO_SUFFIXES
from utils.errors import UserError
from utils.names import is_text

TOP_FOLDER = "videos"  # of the features of videos that are in no sub-folder
PREVIEWS = (".gif", ".apng")  # next to a video of the same name
_LONGEST_NAME = 255 - len(".npz")  # bytes that file systems allow
_KEPT, _DIGITS = 100, 16  # bytes of a folder's name that is too long, and digits of its hash
_SHOWN_ENDINGS = 5


@dataclass(frozen=True, slots=True)
class VideoFile:
    """A video file."""

    vid: str  # the video's name
    path: Path
    folder: str  # of its features below ``<extractor>_features``
    origin: str = ""  # the folder that was searched, absolute, as text


@dataclass(frozen=True, slots=True)
class FoundVideos:
    """The content of a folder and its sub-folders."""

    top: Path  # the folder
    videos: list[VideoFile] = field(default_factory=list)  # by name
    unusable: dict[Path, str] = field(default_factory=dict)  # videos and folders, and why
    other: list[Path] = field(default_factory=list)  # files whose ending is no video's
    hidden: list[Path] = field(default_factory=list)  # names with a leading dot, and the system's
    duplicates: list[Path] = field(default_factory=list)  # previews of videos, second links
    unread: list[Path] = field(default_factory=list)  # folders that cannot be read

    @property
    def origin(self) -> str:
        """The real path of ``top``, as text."""
        return _as_text(os.path.realpath(self.top))

    def names(self) -> set[str]:
        """Return the names of all videos, also of those that cannot be used."""
        return {video.vid for video in self.videos} | {path.stem for path in self.unusable}

    def notes(self) -> Iterator[str]:
        """Yield a line for each kind of file that was passed over."""
        endings = Counter(map(_ending, self.other))
        common = ", ".join(f"{n} {ending}" for ending, n in endings.most_common(_SHOWN_ENDINGS))
        more = ", …" if len(endings) > _SHOWN_ENDINGS else ""
        rarest = sorted(self.other, key=lambda path: endings[_ending(path)])
        kinds = (
            (f"files whose ending is no video's ({common}{more})", rarest),
            ("hidden files and folders", self.hidden),
            ("previews of videos and second links to them", self.duplicates),
        )
        for kind, paths in kinds:
            if paths:
                example = shown(paths[0].relative_to(self.top))
                yield f"passed over: {len(paths)} {kind}, such as {example}"


def find_videos(video_dir: str | Path) -> FoundVideos:
    """Find all videos below a folder and the folders that links lead to, each folder once.

    A video is named as its file, without the ending. Features of ``a/b/x.mp4`` go to folder
    ``a_b``. Several videos of one name cannot be used, and are listed.

    Raises:
        UserError: it is no folder.
    """
    top = Path(video_dir)
    if not top.is_dir():
        raise UserError(f"{top} is no folder; --video_dir must hold the videos")
    listed = list_files(top)
    found = FoundVideos(top, hidden=listed.hidden, unread=list(listed.unread))
    found.unusable.update(listed.unread)
    by_name = defaultdict(list)
    for path in listed.files:
        if path.suffix.lower() not in VIDEO_SUFFIXES or not _is_file(path):
            found.other.append(path)
        else:
            by_name[path.stem].append(path)
    for vid, paths in sorted(by_name.items()):
        _take(found, vid, paths)
    return found


def _ending(path: Path) -> str:
    return shown(path.suffix.lower()) or "without an ending"


def _is_file(path: Path) -> bool:
    """Return whether it is a file, or a broken link, as to an archive that is not mounted."""
    exists = os.path.exists(path)  # noqa: PTH110  Path.exists raises where a link cannot be read
    return path.is_file() if exists else path.is_symlink()


def _take(found: FoundVideos, vid: str, paths: list[Path]) -> None:
    """Add the only video of a name, or why it cannot be used."""
    films = [path for path in paths if path.suffix.lower() not in PREVIEWS] or paths
    files: dict[str, Path] = {}
    for path in sorted(films, key=Path.is_symlink):
        files.setdefault(os.path.realpath(path), path)
    if len(files) > 1:
        which = " and ".join(shown(path) for path in files.values())
        reason = f"{which} would all be video {vid!r}; rename all but one of them"
    elif not is_text(vid):
        reason = "its name is no text; rename it"
    elif len(os.fsencode(vid)) > _LONGEST_NAME:
        reason = f"its name has more than {_LONGEST_NAME} bytes; rename it"
    else:
        (path,) = files.values()
        found.duplicates.extend(other for other in paths if other != path)
        found.videos.append(VideoFile(vid, path, _feature_folder(found.top, path), found.origin))
        return
    found.unusable.update(dict.fromkeys(files.values(), reason))


def _feature_folder(top: Path, path: Path) -> str:
    """Return the names of a video's folders joined to one, shortened where it is too long."""
    name = _as_text("_".join(path.relative_to(top).parts[:-1])) or TOP_FOLDER
    if len(name.encode()) > _LONGEST_NAME:
        digest = hashlib.sha256(name.encode()).hexdigest()
        name = name.encode()[:_KEPT].decode(errors="ignore") + digest[:_DIGITS]
    return name


def _as_text(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")
