"""The videos below a folder, and what is passed over there."""

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

TOP_FOLDER = "videos"  # of features whose videos lie in no folder of their own
PREVIEWS = (".gif", ".apng")  # beside a film of the same name they show what is in it
_LONGEST_NAME = 255 - len(".npz")  # bytes that file systems allow
_KEPT, _DIGITS = 100, 16  # bytes of a folder's name that is too long, and digits of its hash
_SHOWN_ENDINGS = 5


@dataclass(frozen=True, slots=True)
class VideoFile:
    """A video."""

    vid: str  # its name
    path: Path  # its file
    folder: str  # where its features go below ``<extractor>_features``
    origin: str = ""  # the folder that was searched, absolute, as text


@dataclass(frozen=True, slots=True)
class FoundVideos:
    """What lies below a folder."""

    top: Path  # the folder
    videos: list[VideoFile] = field(default_factory=list)  # by name
    # files that would be videos, and folders, that cannot be used, and why
    unusable: dict[Path, str] = field(default_factory=dict)
    other: list[Path] = field(default_factory=list)  # files whose ending is no video's
    # files and folders whose name begins with a dot, and those of the system
    hidden: list[Path] = field(default_factory=list)
    # files that show what another video of their name does: previews, second links
    again: list[Path] = field(default_factory=list)
    # folders that cannot be read, so that nobody knows what is in them
    unread: list[Path] = field(default_factory=list)

    @property
    def origin(self) -> str:
        """``top`` without links, as text."""
        return _as_text(os.path.realpath(self.top))

    def names(self) -> set[str]:
        """Names of all videos, also of those that cannot be used."""
        return {video.vid for video in self.videos} | {path.stem for path in self.unusable}

    def notes(self) -> Iterator[str]:
        """A line for each kind of what was passed over."""
        endings = Counter(map(_ending, self.other))
        common = ", ".join(f"{n} {ending}" for ending, n in endings.most_common(_SHOWN_ENDINGS))
        more = ", …" if len(endings) > _SHOWN_ENDINGS else ""
        rarest = sorted(self.other, key=lambda path: endings[_ending(path)])
        kinds = (
            (f"files whose ending is no video's ({common}{more})", rarest),
            ("hidden files and folders", self.hidden),
            ("previews of videos and second links to them", self.again),
        )
        for kind, paths in kinds:
            if paths:
                example = shown(paths[0].relative_to(self.top))
                yield f"passed over: {len(paths)} {kind}, such as {example}"


def find_videos(video_dir: str | Path) -> FoundVideos:
    """All videos below a folder and the folders that links lead to, each folder once.

    A video is called as its file, without the ending. Folders within folders become one:
    ``a/b/x.mp4`` goes to ``a_b``. Videos of one name cannot be used, and so are listed.

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
    """Return whether it is a file, or a link to one that is not there now: an archive not
    mounted."""
    is_there = os.path.exists(path)  # noqa: PTH110  as above
    return path.is_file() if is_there else path.is_symlink()


def _take(found: FoundVideos, vid: str, paths: list[Path]) -> None:
    """Take the one video of a name; several cannot be told apart."""
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
        found.again.extend(other for other in paths if other != path)
        found.videos.append(VideoFile(vid, path, _feature_folder(found.top, path), found.origin))
        return
    found.unusable.update(dict.fromkeys(files.values(), reason))


def _feature_folder(top: Path, path: Path) -> str:
    """The folders' names in one, as text, and as far as a name may be that long."""
    name = _as_text("_".join(path.relative_to(top).parts[:-1])) or TOP_FOLDER
    if len(name.encode()) > _LONGEST_NAME:
        digest = hashlib.sha256(name.encode()).hexdigest()
        name = name.encode()[:_KEPT].decode(errors="ignore") + digest[:_DIGITS]
    return name


def _as_text(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")
