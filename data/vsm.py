"""Video-subtitle matching (paper, section 3.2): a subtitle's text is a query for its own moment.

Items are those of moment retrieval: a video with five queries about it.
"""

from collections.abc import Sequence

import numpy as np

from data.loader import ItemKey, first_usable
from data.vcmr import QUERIES_PER_VIDEO, MomentItem
from data.video import SubtitleSource, Transcript, VideoItem, cut_texts, read_features
from utils.errors import UserError
from utils.logger import LOGGER


def usable_subtitles(transcript: Transcript) -> list[int]:
    """Return the numbers of the subtitles that have a frame to find and a text to ask with."""
    return [number for number, frames in transcript.frames if frames and transcript.texts[number]]


def draw_queries(usable: Sequence[int], rng: np.random.Generator) -> list[int]:
    """Five of them in order; where there are fewer, all, and the last one repeated."""
    if len(usable) > QUERIES_PER_VIDEO:
        places = rng.permutation(len(usable))[:QUERIES_PER_VIDEO]
        return [usable[place] for place in np.sort(places)]
    return [*usable, *[usable[-1]] * (QUERIES_PER_VIDEO - len(usable))]


def subtitle_frames(frames: Sequence[int], num_frames: int) -> tuple[int, int]:
    """First and last frame of a subtitle as a moment: two frames where the video has them."""
    return frames[0], min(max(frames[0] + 1, frames[-1]), num_frames - 1)


class VsmDataset:
    """A video and five of its subtitles as queries; their text is not in the video's input.

    Videos without a usable subtitle are left out when the data set is made, on all ranks alike.

    Args:
        vids: the videos.
        source: reads them.
        max_txt_len: subtitles are cut to so many tokens each; −1 keeps all.
        seed: of the draws.

    Raises:
        UserError: no video is left.
    """

    def __init__(
        self, vids: Sequence[str], source: SubtitleSource, max_txt_len: int, seed: int
    ) -> None:
        self.source, self.seed, self.max_txt_len = source, seed, max_txt_len
        self._passed: set[str] = set()
        self.vids = [
            vid for vid in vids if usable_subtitles(source.transcript(vid, source.num_frames(vid)))
        ]
        if not self.vids:
            raise UserError(
                f"none of the {len(vids)} videos has a subtitle with text and a frame in "
                f"{source.subtitles.path}: video-subtitle matching has nothing to match"
            )

    def __len__(self) -> int:
        return len(self.vids)

    def __getitem__(self, key: ItemKey | int) -> MomentItem:
        key = ItemKey.of(key)

        def make(place: int) -> MomentItem | None:
            return self._read(self.vids[place], key.generator(self.seed))

        return first_usable(key.index, len(self.vids), make)

    def _read(self, vid: str, rng: np.random.Generator) -> MomentItem | None:
        """The item of a video; None if its features have fewer frames than any subtitle needs."""
        features = read_features(self.source.features, vid)
        whole = self.source.transcript(vid, len(features))
        usable = usable_subtitles(whole)
        if not usable:
            if vid not in self._passed:
                self._passed.add(vid)
                LOGGER.warning(
                    "%s has %d frames, fewer than id2nframe.json says, and no subtitle in them: "
                    "video-subtitle matching passes it over",
                    *(vid, len(features)),
                )
            return None
        return self._item(vid, features, whole, draw_queries(usable, rng))

    def _item(
        self, vid: str, features: np.ndarray, whole: Transcript, queries: Sequence[int]
    ) -> MomentItem:
        texts = cut_texts(whole.texts, self.max_txt_len)
        left = [[] if number in queries else text for number, text in enumerate(texts)]
        subtitles = self.source.with_context(Transcript(left, whole.frames))
        frames, cls_id = dict(whole.frames), self.source.subtitles.meta["CLS"]
        return MomentItem(
            VideoItem(vid, features, subtitles),
            [[cls_id, *texts[number]] for number in queries],
            [subtitle_frames(frames[number], len(features)) for number in queries],
            [f"{vid}/{number}" for number in queries],
        )
