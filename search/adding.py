"""Add a film from Python: a file, or features that exist already."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from data.prepare.extraction import Provenance
from data.prepare.find_videos import find_videos
from data.prepare.problems import FAILED_FILE, Problems
from data.prepare.subtitle_files import read_subtitles
from data.prepare.work import script_parser
from engine.extractors import add_extractors
from model.extractors.extractor import FeatureExtractor
from search.film_folder import FilmFolder, build_networks, subtitle_lines
from search.indexing import Material, require_width
from search.records import Line, NewFilm
from search.scorer import Scorer
from utils.errors import UserError, brief

Spoken = Sequence[tuple[float, float, str]]  # start, end, text


class FilmReader:
    """Reads film files with the networks that extract the model's features.

    Args:
        scorer: the model.
        device: of the networks.
        options: names and values of the options of ``index_videos.py`` for networks, such as
            ``resnet_weights``; True for one without a value.
    """

    def __init__(self, scorer: Scorer, device: str, options: Mapping[str, Any]) -> None:
        self._scorer, self._device = scorer, torch.device(device)
        parser = script_parser("")
        add_extractors(parser)
        words: list[str] = []
        for name, value in options.items():
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
        self._options = parser.parse_args(words)

    @cached_property
    def _networks(self) -> tuple[FeatureExtractor, dict[str, Provenance]]:
        return build_networks(self._options, self._scorer, self._device)

    @property
    def extractors(self) -> dict[str, dict[str, Any]]:
        """{extractor: provenance} of the features."""
        return {name: dataclasses.asdict(made) for name, made in self._networks[1].items()}

    def read(self, file: Path, name: str, subtitles: str | Path | Spoken | None) -> Material:
        """Return a film as it would be read from a folder of films.

        Raises:
            UserError: it, or its subtitles, cannot be used.
        """
        if not file.is_file():
            raise UserError(f"{file} does not exist")
        lines = as_lines(name, subtitles)
        with TemporaryDirectory() as temporary:
            folder, index = Path(temporary, "films"), Path(temporary, "index")
            folder.mkdir()
            index.mkdir()
            (folder / f"film{file.suffix}").symlink_to(file.absolute())
            problems = Problems(index / FAILED_FILE)
            found = find_videos(folder)
            if not found.videos:
                raise UserError(f"{file} cannot be used: its ending is no film's")
            size = self._options.batch_size
            source = FilmFolder(found, index, *self._networks, problems, batch_size=size)
            ((_, material),) = source.read(list(source.files))
            if material is None:
                reason = problems.first_failure.partition(": ")[2]
                raise UserError(f"{file} cannot be used: {reason}")
        film = material.film
        film = dataclasses.replace(film, name=name, file=file.absolute(), lines=lines, source="")
        return Material(film, material.features)


def as_lines(name: str, subtitles: str | Path | Spoken | None) -> list[Line]:
    """Return the spoken lines of a film, by start.

    Raises:
        UserError: the file cannot be used, or times are missing or the wrong way round.
    """
    if isinstance(subtitles, str | Path):
        if not Path(subtitles).is_file():
            raise UserError(f"{subtitles} does not exist")
        return subtitle_lines(read_subtitles(Path(subtitles)))
    lines = []
    for entry in subtitles or ():
        try:
            start, end, text = entry
            line = Line(float(start), float(end), str(text))
        except (TypeError, ValueError):
            raise UserError(f"{name}: {brief(entry)} is no (start, end, text)") from None
        if not 0 <= line.start <= line.end < math.inf:
            raise UserError(f"{name}: {brief(entry)} is spoken at no time; fix its seconds")
        lines.append(line)
    return sorted(lines, key=lambda line: line.start)


def as_material(
    name: str,
    file: Path,
    features: np.ndarray,
    subtitles: str | Path | Spoken | None,
    scorer: Scorer,
    seconds: float | None,
) -> Material:
    """Return a film of features (T, D) and spoken lines.

    Raises:
        UserError: the features have another shape or type, or another width than the model's.
    """
    values = np.asarray(features)
    if values.ndim != 2 or not len(values) or values.dtype.kind != "f":
        raise UserError(
            f"{name}: features are (frames, width) floating-point numbers, not {values.shape} "
            f"{values.dtype}"
        )
    if not np.isfinite(values).all():
        raise UserError(f"{name}: features hold NaN or infinite values")
    require_width(scorer, values.shape[1])
    longest = len(values) * scorer.maker.interval
    film = NewFilm(
        name=name,
        seconds=longest if seconds is None else min(seconds, longest),
        lines=as_lines(name, subtitles),
        file=file.absolute() if file.is_file() else None,
    )
    return Material(film, values.astype(np.float32, copy=False))
