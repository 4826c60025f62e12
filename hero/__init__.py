"""HERO for a notebook: search films for the moments that sentences describe.

from hero import MomentSearch

engine = MomentSearch.open("index")
moments = engine.search("A dog jumps into the water.", top=5)
"""

import utils.runtime  # noqa: F401  before PyTorch

# isort: split
from search.answers import Moment
from search.engine import MomentSearch

__all__ = ["Moment", "MomentSearch"]
