"""One film more, from Python: a file, or features that are there already."""

from __future__ import annotations

import dataclasses
import html
import math
from argparse import Namespace
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
from engine.extractors import add_extractors, build_extractors, check_extractors
from model.extractors.extractor import FeatureExtractor
from search.film_folder import FilmFolder
from search.indexing import Failure, Material, encode_film, require_width
from search.records import Line
from search.scorer import OwnFeatures, Scorer
from utils.errors import UserError, brief
from utils.files import read_json

__all__ = ["FilmReader", "as_material", "encode_film"]

Spoken = Sequence[tuple[float, float, str]]  # start, end, text


class FilmReader:
    """Reads film files with the networks that the scorer's features come from.

    Args:
        scorer: the model.
        device: where networks compute.
        options: names and values of the networks' options of ``index_videos.py``, such as
            ``resnet_weights``; True for one without a value.
    """

    def __init__(self, scorer: Scorer, device: str, options: Mapping[str, Any]) -> None:
        self._scorer, self._device = scorer, torch.device(device)
        parser = script_parser("")
        add_extractors(parser)
        words: list[str] = []
        for name, value in options.items():
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
        self._options: Namespace = parser.parse_args(words)

    @cached_property
    def _networks(self) -> tuple[FeatureExtractor, dict[str, Provenance]]:
        if isinstance(self._scorer, OwnFeatures):
            return self._scorer.extraction(self._options.half)
        check_extractors(self._options)
        return build_extractors(self._options, self._scorer.maker.interval, self._device)

    @property
    def extractors(self) -> dict[str, dict[str, Any]]:
        """What makes the features."""
        return {name: dataclasses.asdict(made) for name, made in self._networks[1].items()}

    def read(self, film: Path, name: str, subtitles: str | Path | Spoken | None) -> Material:
        """Return a film as the index takes it from a folder of films.

        Raises:
            UserError: it, or its subtitles, cannot be used.
        """
        if not film.is_file():
            raise UserError(f"{film} does not exist")
        lines = as_lines(name, subtitles)
        widths = {name: made.width for name, made in self._networks[1].items()}
        require_width(self._scorer, widths, sum(widths.values()))
        with TemporaryDirectory() as place:
            folder, index = Path(place, "films"), Path(place, "index")
            folder.mkdir()
            index.mkdir()
            (folder / f"film{film.suffix}").symlink_to(film.absolute())
            problems = Problems(index / FAILED_FILE)
            found = find_videos(folder)
            if not found.videos:
                raise UserError(f"{film} cannot be used: its ending is no film's")
            size = self._options.batch_size
            source = FilmFolder(found, index, *self._networks, problems, batch_size=size)
            (material,) = source.read(list(source.files))
            if isinstance(material, Failure):
                problems.write()
                (noted,) = read_json(problems.path, dict).values()
                raise UserError(f"{film} cannot be used: {noted['reason']}")
        return dataclasses.replace(
            material, name=name, file=film.absolute(), lines=lines, source=""
        )


def as_lines(name: str, subtitles: str | Path | Spoken | None) -> list[Line]:
    """Return what is spoken in a film by its start.

    Args:
        name: of the film.
        subtitles: a file, or start, end and text of each line.

    Raises:
        UserError: the file cannot be used, or times are missing or the wrong way round.
    """
    if isinstance(subtitles, str | Path):
        if not Path(subtitles).is_file():
            raise UserError(f"{subtitles} does not exist")
        cues = read_subtitles(Path(subtitles)).cues
        return [Line(cue.start, cue.end, html.unescape(cue.text).strip()) for cue in cues]
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
    film: Path,
    features: np.ndarray,
    subtitles: str | Path | Spoken | None,
    scorer: Scorer,
    seconds: float | None,
) -> Material:
    """Return features (T, D) that are there already, and what is spoken, as a film.

    Raises:
        UserError: they are no features, or of another width than the model's.
    """
    values = np.asarray(features)
    if values.ndim != 2 or not len(values) or values.dtype.kind != "f":
        raise UserError(
            f"{name}: features are (frames, width) floating-point numbers, not {values.shape} "
            f"{values.dtype}"
        )
    if not np.isfinite(values).all():
        raise UserError(f"{name}: features hold NaN or infinite values")
    require_width(scorer, {}, values.shape[1])
    longest = len(values) * scorer.maker.interval
    return Material(
        name=name,
        features=values.astype(np.float32, copy=False),
        lines=as_lines(name, subtitles),
        seconds=longest if seconds is None else min(seconds, longest),
        file=film.absolute() if film.is_file() else None,
    )
