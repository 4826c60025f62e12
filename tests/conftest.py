"""Fixtures: where the recorded world lies."""

import os
from pathlib import Path

import numpy as np
import pytest

GOLDEN = Path(os.environ.get("HERO_GOLDEN", Path(__file__).parent / "data" / "golden"))


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of a recorded world (``$HERO_GOLDEN``, or the one kept with the tests)."""
    return GOLDEN


@pytest.fixture(scope="session")
def world(golden: Path) -> Path:
    """Raw inputs of the recorded world and the databases made from them."""
    return golden / "world"


@pytest.fixture(scope="session")
def expected(golden: Path) -> Path:
    """Recorded outputs."""
    return golden / "expected"


@pytest.fixture(scope="session")
def recorded(expected: Path) -> dict[str, np.ndarray]:
    """All recorded arrays, by key."""
    with np.load(expected / "golden.npz") as arrays:
        return dict(arrays)
