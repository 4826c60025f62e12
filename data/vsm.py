"""Video-subtitle matching (paper, section 3.2): a subtitle's text is a query for its own moment.

Items are those of moment retrieval: a video with five queries about it.
"""

from collections.abc import Sequence

import numpy as np

from data.vcmr import QUERIES_PER_VIDEO, MomentItem
from data.video import SubtitleSource, Transcript, VideoDataset, VideoItem, cut_texts, read_features
from utils.errors import UserError
from utils.logger import LOGGER


def usable_subtitles(transcript: Transcript) -> list[int]:
    """Return the numbers of the subtitles that have a frame and a text."""
    return [number for number, frames in transcript.frames if frames and transcript.texts[number]]


def draw_queries(usable: Sequence[int], rng: np.random.Generator) -> list[int]:
    """Draw five of the subtitles, in order; of fewer, return all, the last one repeated."""
    if len(usable) > QUERIES_PER_VIDEO:
        return [usable[i] for i in sorted(rng.permutation(len(usable))[:QUERIES_PER_VIDEO])]
    return [*usable, *[usable[-1]] * (QUERIES_PER_VIDEO - len(usable))]


def subtitle_frames(frames: Sequence[int], num_frames: int) -> tuple[int, int]:
    """Return first and last frame of a subtitle's moment: two frames where the video has them."""
    return frames[0], min(max(frames[0] + 1, frames[-1]), num_frames - 1)


class VsmDataset(VideoDataset[MomentItem]):
    """Videos with five of their subtitles as queries, whose text is not in the video's input.

    Videos without a usable subtitle are left out when the data set is made, on all ranks alike.

    Args:
        vids, source, seed: see :class:`data.video.VideoDataset`.
        max_txt_len: tokens that are kept of each subtitle; −1 keeps all.

    Raises:
        UserError: no video is left.
    """

    source: SubtitleSource

    def __init__(
        self, vids: Sequence[str], source: SubtitleSource, max_txt_len: int, seed: int
    ) -> None:
        usable = [
            vid for vid in vids if usable_subtitles(source.transcript(vid, source.num_frames(vid)))
        ]
        super().__init__(usable, source, seed)
        self.max_txt_len = max_txt_len
        self._skipped: set[str] = set()
        if not usable:
            raise UserError(
                f"none of the {len(vids)} videos has a subtitle with text and a frame in "
                f"{source.subtitles.path}: video-subtitle matching has nothing to match"
            )

    def item(self, vid: str, rng: np.random.Generator) -> MomentItem | None:
        """See :class:`data.video.VideoDataset`; None if no subtitle has a frame of the features."""
        features = read_features(self.source.features, vid)
        transcript = self.source.transcript(vid, len(features))
        usable = usable_subtitles(transcript)
        if not usable:
            if vid not in self._skipped:
                self._skipped.add(vid)
                LOGGER.warning(
                    "%s has %d frames, fewer than its frame count, and no subtitle in them: "
                    "video-subtitle matching skips it",
                    *(vid, len(features)),
                )
            return None
        return self._item(vid, features, transcript, draw_queries(usable, rng))

    def _item(
        self, vid: str, features: np.ndarray, transcript: Transcript, queries: Sequence[int]
    ) -> MomentItem:
        texts = cut_texts(transcript.texts, self.max_txt_len)
        left = [[] if number in queries else text for number, text in enumerate(texts)]
        subtitles = self.source.with_context(Transcript(left, transcript.frames))
        frames, cls_id = dict(transcript.frames), self.source.subtitles.meta["CLS"]
        return MomentItem(
            VideoItem(vid, features, subtitles),
            [[cls_id, *texts[number]] for number in queries],
            [subtitle_frames(frames[number], len(features)) for number in queries],
            [f"{vid}/{number}" for number in queries],
        )
