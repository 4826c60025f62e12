"""The files below a folder, as preparation searches it."""

import os
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

# Where other systems keep what was deleted and thumbnails: hidden there, without a dot in front.
SYSTEM_FOLDERS = {
    *("$recycle.bin", "recycler", "#recycle", "@recycle", "@eadir", "lost+found"),
    "system volume information",
}


@dataclass(frozen=True, slots=True)
class FolderFiles:
    """What lies below a folder."""

    top: Path  # the folder
    # all that is neither a folder nor hidden, by path
    files: list[Path] = field(default_factory=list)
    # files and folders whose name begins with a dot, and those of the system
    hidden: list[Path] = field(default_factory=list)
    unread: dict[Path, str] = field(default_factory=dict)  # folders that cannot be read, and why


def list_files(top: str | Path) -> FolderFiles:
    """Search a folder and the folders that links lead to, each once; those without links first."""
    found = FolderFiles(Path(top))
    folders, links = [found.top], deque[Path]()
    seen: set[tuple[int, int]] = set()
    while folders or links:
        folder = folders.pop() if folders else links.popleft()
        try:
            known = folder.stat()
            paths = sorted(folder.iterdir())
        except OSError as error:
            found.unread[folder] = f"the folder cannot be read ({error.strerror}): fix that"
            continue
        if (place := (known.st_dev, known.st_ino)) in seen:
            continue
        seen.add(place)
        for path in paths:
            if path.name.startswith(".") or path.name.lower() in SYSTEM_FOLDERS:
                found.hidden.append(path)
            elif os.path.isdir(path):  # noqa: PTH112  Path.is_dir raises where a link cannot be read
                (links if path.is_symlink() else folders).append(path)
            else:
                found.files.append(path)
    found.files.sort()
    return found


def shown(path: str | Path) -> str:
    """Return a path as one line can show it, also one whose bytes are no text."""
    text = str(path)
    return text if text.isprintable() else ascii(text)
