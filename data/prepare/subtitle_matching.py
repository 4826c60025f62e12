"""Match subtitle files with films by their names."""

import filecmp
import os
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data.prepare.folder_files import FolderFiles, list_files, shown
from data.prepare.languages import parse_language
from data.prepare.subtitle_files import SUFFIXES
from data.video_pool import feature_name
from utils.errors import UserError, brief
from utils.names import is_text

# Subtitle formats that are not read, as text or as pictures.
_OTHER_SUFFIXES = {
    *(".sub", ".idx", ".sup", ".smi", ".sami", ".ttml", ".dfxp", ".sbv", ".lrc", ".stl"),
    *(".scc", ".json3", ".srv1", ".srv2", ".srv3", ".usf", ".mks", ".mpl"),
}
# Tags of a name other than the language, ranked: those of complete subtitles first.
_KINDS = {
    **dict.fromkeys(("full", "default", "orig", "original", "und"), 0),
    **dict.fromkeys(("cc", "sdh", "hi"), 1),  # for the hard of hearing: sounds are described
    **dict.fromkeys(("auto", "asr", "generated"), 2),
    **dict.fromkeys(("commentary", "lyrics", "songs", "signs", "foreign", "forced"), 3),
}
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class _Tags:
    """The tags of a file's name."""

    language: tuple[str, str] | None = None  # see :func:`parse_language`
    kind: int = 0  # of ``_KINDS``

    def rank(self, wanted: tuple[str, str] | None) -> tuple[int, ...] | None:
        """Return how well the file fits, the lower the better; None: not at all."""
        if self.language is None:
            return self.kind, 1, 0
        if wanted is None or self.language[0] != wanted[0]:
            return None
        if not f"{self.language[1]}-".startswith(f"{wanted[1]}-" if wanted[1] else ""):
            return None
        return self.kind, 0, int(self.language != wanted)


_Candidate = tuple[tuple[int, ...], str, Path]
"""A file that may belong to a film: rank (of the tags, then the format), name, path."""


@dataclass(frozen=True, slots=True)
class SubtitleMatches:
    """Subtitle files and their films."""

    files: dict[str, Path] = field(default_factory=dict)  # by the film's name
    failed: dict[Path, str] = field(default_factory=dict)  # files and folders, and why
    passed_over: dict[str, list[Path]] = field(default_factory=dict)  # other files, by the reason

    def pass_over(self, path: Path, reason: str) -> None:
        """Note a file that is not used."""
        self.passed_over.setdefault(reason, []).append(path)

    def notes(self) -> Iterator[str]:
        """Yield a line for each reason to pass over files."""
        for reason, paths in sorted(self.passed_over.items()):
            named = ", ".join(shown(path) for path in paths[:_SHOWN])
            more = f", … ({len(paths)} files)" if len(paths) > _SHOWN else ""
            yield f"passed over, {reason}: {named}{more}"


def match_subtitles(
    source: Path, films: Collection[str] | None = None, language: str | None = None
) -> SubtitleMatches:
    """Match the subtitle files of a folder with films.

    ``movie.srt`` and ``movie.mp4.srt`` belong to film ``movie``; with a language so do
    ``movie.en.srt``, ``movie.eng.srt``, ``movie.en-US.sdh.srt``. Of several, the most complete is
    taken: all speech before subtitles for the hard of hearing, before recognised speech, before
    forced subtitles; a name with a language before one without.

    Args:
        source: the folder, searched with all folders in it and those that links lead to; or a file.
        films: names of the films that exist; None: derived from the names of files.
        language: of the files to take; None: a file's name is its film's.

    Raises:
        UserError: ``language`` is none.
    """
    films = None if films is None else frozenset(films)
    wanted = None if language is None else parse_language(language)
    if language is not None and wanted is None:
        raise UserError(f"--language {brief(language)} is no language; en, eng, pt-BR, … are")
    matches = SubtitleMatches()
    found = FolderFiles([source]) if source.is_file() else list_files(source)
    matches.failed.update(found.unread)
    candidates: dict[str, list[_Candidate]] = defaultdict(list)
    for path in found.files:
        suffix = path.suffix.lower()
        if suffix in _OTHER_SUFFIXES:
            matches.pass_over(path, "of a format that is not read (convert it to SRT)")
        if suffix not in SUFFIXES:
            continue
        if not is_text(path.stem):
            matches.failed[path] = "its name is no text; rename it"
            continue
        if not os.path.isfile(path):  # noqa: PTH113  Path.is_file raises where a link cannot be read
            matches.failed[path] = "it is no file, or a link to none; remove it"
            continue
        film, tags = _split_name(path.stem, films, wanted is not None)
        if film is None:
            matches.pass_over(path, "there is no such video")
        elif (rank := tags.rank(wanted)) is not None:
            rank = (*rank, SUFFIXES.index(suffix))
            candidates[film].append((rank, path.name, path))
        elif wanted:
            matches.pass_over(path, f"not of language {language}")
        else:
            matches.pass_over(path, "its language is not selected (--language)")
    for film in sorted(candidates):
        _choose(film, sorted(candidates[film]), matches)
    return matches


def _split_name(
    stem: str, films: Collection[str] | None, has_language: bool
) -> tuple[str | None, _Tags]:
    """Return the film of a file's name, None if there is none, and the tags."""
    parts = stem.split(".")
    if films is None:
        for split in range(1, len(parts)) if has_language else ():
            tags = _read_tags(parts[split:])
            if tags is not None and tags.language is not None:
                return ".".join(parts[:split]), tags
        return stem, _Tags()
    for split in range(len(parts), 0, -1):
        film = feature_name(".".join(parts[:split]), films)
        tags = _read_tags(parts[split:])
        if film in films and tags is not None:
            return film, tags
    return None, _Tags()


def _read_tags(parts: list[str]) -> _Tags | None:
    """Return the tags in the parts of a name after the film's; None if one of them is no tag."""
    kinds = [part.lower() for part in parts if part.lower() in _KINDS]
    others = [part for part in parts if part.lower() not in _KINDS]
    if not others and "hi" in kinds:  # alone it is Hindi
        kinds.remove("hi")
        others = ["hi"]
    if len(others) > 1 and others[-1].isdecimal():  # of several tracks of a language
        others.pop()
    language = parse_language(others[0]) if len(others) == 1 else None
    if len(others) > 1 or (others and language is None):
        return None
    if language is not None and language[1] in _KINDS:  # en-forced
        kinds.append(language[1])
        language = language[0], ""
    return _Tags(language, max((_KINDS[kind] for kind in kinds), default=0))


def _choose(film: str, candidates: list[_Candidate], matches: SubtitleMatches) -> None:
    """Take the best of a film's files; none if another folder has one that is as good."""
    (best_rank, _, best), *others = candidates
    for rank, _, path in others:
        is_as_good = rank[:-1] == best_rank[:-1] and path.parent != best.parent
        if is_as_good and not filecmp.cmp(best, path, shallow=False):
            which = f"{shown(best)} and {shown(path)}"
            reason = f"{which} are both subtitles of video {film!r}; keep one of them"
            matches.failed.update(dict.fromkeys((path for _, _, path in candidates), reason))
            return
    matches.files[film] = best
    for _, _, path in others:
        matches.pass_over(path, "another file of the same video is taken")
