# ruff: noqa: N999 (the name under which the task is published)
"""Questions about a video with several answers, one of them right: TVQA (5), How2QA (4)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from data.batch import QuestionBatch
from data.candidates import UNKNOWN, CandidateDataset, CandidateItem, pack_candidates
from data.loader import ItemKey
from data.moments import as_moment, warn_of_clamped
from data.stores.lmdb_io import TextDb
from data.vcmr import moment_frames
from data.video import VideoSource
from utils.errors import UserError

NO_SPAN = (UNKNOWN, UNKNOWN)
_SPAN = re.compile("(-?[^-]+)-(-?[^-]+)")  # start-end, either perhaps negative


@dataclass
class QuestionItem(CandidateItem):
    """One question; its candidates are its answers."""

    span: tuple[int, int]  # first and last frame that tell the answer, or NO_SPAN


def parse_seconds(ts: object) -> tuple[float, float] | None:
    """Return start and end of "st-ed" or [st, ed]; None for anything else ("NaN-NaN")."""
    if not isinstance(ts, str):
        return as_moment(ts)
    numbers = _SPAN.fullmatch(ts)
    try:
        return as_moment([float(number) for number in numbers.groups()]) if numbers else None
    except ValueError:
        return None


class QuestionDataset(CandidateDataset):
    """Questions with their video and all answers.

    Raises:
        UserError: questions have different numbers of answers.
    """

    kind, label = "question", "right answer's index"

    def __init__(
        self, db: TextDb, videos: VideoSource, max_txt_len: int = -1, training: bool = False
    ) -> None:
        super().__init__(db, videos, max_txt_len, training)
        moments = ((id_, parse_seconds(db[id_].get("ts"))) for id_ in self.ids)
        warn_of_clamped(((id_, moment) for id_, moment in moments if moment), db.path)
        parts = db.side("id2len.json")
        counts = {i: len(parts[i]) - 1 if isinstance(parts[i], list) else 0 for i in self.ids}
        self.num_answers = counts[self.ids[0]]
        odd = next((i for i, count in counts.items() if count != max(1, self.num_answers)), None)
        if odd is not None:
            raise UserError(
                f"question {odd} of {db.path} has {counts[odd]} answers, question {self.ids[0]} "
                f"has {self.num_answers}; all questions must have equally many (at least one)"
            )

    def __getitem__(self, key: ItemKey | int) -> QuestionItem:
        id_ = self.ids[ItemKey.of(key).index]
        record = self.db[id_]
        question, *answers = record["input_ids"]
        separator = self.db.meta["SEP"]
        video = self.videos(self.video_of[id_])
        seconds = parse_seconds(record.get("ts"))
        return QuestionItem(
            ids=[id_],
            video=video,
            texts=[[separator, *question, separator, *answer] for answer in answers],
            targets=[self.target(record, len(answers))],
            span=moment_frames(*seconds, self.videos.interval, video.num_frames)
            if seconds
            else NO_SPAN,
        )

    @staticmethod
    def collate(items: Sequence[QuestionItem]) -> QuestionBatch:
        """Pack questions with equally many answers."""
        candidates = pack_candidates(items)
        runs = candidates.runs.offsets.view(len(items), -1)  # (N, K) first row of each candidate
        lengths = candidates.video.frame_lens
        targets = [item.targets[0] for item in items]
        spans = [item.span for item in items]
        return QuestionBatch(
            ids=[item.ids[0] for item in items],
            candidates=candidates,
            targets=torch.tensor(targets),
            spans=torch.tensor(spans),
            frame_runs=runs.repeat_interleave(lengths, dim=0)
            + candidates.video.frame_positions[:, None],
            counts={
                "qa": len(targets) - targets.count(UNKNOWN),
                "st_ed": len(spans) - spans.count(NO_SPAN),
            },
        )
