"""The files below a folder, as preparation searches it."""

import os
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

# Of other systems, for deleted files and thumbnails: hidden there, without a leading dot.
SYSTEM_FOLDERS = {
    *("$recycle.bin", "recycler", "#recycle", "@recycle", "@eadir", "lost+found"),
    "system volume information",
}


@dataclass(frozen=True, slots=True)
class FolderFiles:
    """The files below a folder."""

    files: list[Path] = field(default_factory=list)  # neither folders nor hidden, by path
    hidden: list[Path] = field(default_factory=list)  # names with a leading dot, and the system's
    unread: dict[Path, str] = field(default_factory=dict)  # folders that cannot be read, and why


def list_files(top: str | Path) -> FolderFiles:
    """List the files below a folder and the folders that links lead to, each folder once."""
    found = FolderFiles()
    folders, links = [Path(top)], deque[Path]()  # links last: a folder's own path is preferred
    seen: set[tuple[int, int]] = set()
    while folders or links:
        folder = folders.pop() if folders else links.popleft()
        try:
            known = folder.stat()
            paths = sorted(folder.iterdir())
        except OSError as error:
            found.unread[folder] = f"the folder cannot be read ({error.strerror}): fix that"
            continue
        if (identity := (known.st_dev, known.st_ino)) in seen:
            continue
        seen.add(identity)
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
    """Return a path for a message of one line, also one whose bytes are no text."""
    text = str(path)
    return text if text.isprintable() else ascii(text)
