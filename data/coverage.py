"""How much of a split is available (``--only_available``)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from utils.logger import LOGGER

if TYPE_CHECKING:  # it needs PyTorch
    from data.video import VideoSource

PARTIAL = "partial"  # what marks results and metrics


@dataclass(frozen=True, slots=True)
class Coverage:
    """What is available of a split."""

    where: str  # its database or file
    kind: str  # of its items, in the plural
    videos: tuple[int, int]  # available, all
    items: tuple[int, int]

    @property
    def is_partial(self) -> bool:
        """Whether something is missing."""
        return any(available < total for available, total in (self.videos, self.items))

    def __str__(self) -> str:
        (videos, all_videos), (items, all_items) = self.videos, self.items
        return f"{videos} of {all_videos} videos, {items} of {all_items} {self.kind}"

    def mark(self) -> dict[str, Any]:
        """Return the entry of results and metrics; empty where nothing is missing."""
        if not self.is_partial:
            return {}
        parts = (("videos", self.videos), (self.kind, self.items))
        return {PARTIAL: {name: {"used": used, "of": of} for name, (used, of) in parts}}

    def log(self, only_available: bool) -> None:
        """Log how much of the split is read."""
        if self.is_partial:
            LOGGER.warning("%s: only %s are available and used", self.where, self)
        elif only_available:
            LOGGER.info("%s: all is available, %s", self.where, self)

    def warn_of_metrics(self) -> None:
        """Warn that metrics are those of a part, if they are."""
        if self.is_partial:
            LOGGER.warning("metrics of %s are partial: %s", self.where, self)


def available_items(
    ids: Sequence[str], video_of: Mapping[str, str], videos: "VideoSource", where: object, kind: str
) -> tuple[list[str], Coverage]:
    """Return the items whose videos are available, and how many those are.

    Args:
        ids, video_of: all items, and their videos.
        videos: reads videos; unless ``only_available`` it must have all.
        where, kind: see :class:`Coverage`.

    Raises:
        UserError: videos are missing (with ``only_available``: all are).
    """
    named = dict.fromkeys(video_of[id_] for id_ in ids)
    available = set(videos.require(named, str(where)))
    kept = [id_ for id_ in ids if video_of[id_] in available]
    coverage = Coverage(str(where), kind, (len(available), len(named)), (len(kept), len(ids)))
    coverage.log(videos.only_available)
    return kept, coverage
