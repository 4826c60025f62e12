# ruff: noqa: N999 (the name under which the task is published)
"""Multiple-choice questions about videos: TVQA (5 answers), How2QA (4).

VLEP's items are two events, one of which comes next: answers without a question.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import torch

from data.batch import QuestionBatch
from data.candidates import UNKNOWN, CandidateDataset, CandidateItem, pack_candidates
from data.loader import ItemKey
from data.moments import parse_seconds, warn_of_clamped, warn_of_units
from data.stores.records import EventRecord, QuestionRecord
from data.vcmr import moment_frames
from utils.errors import UserError

NO_SPAN = (UNKNOWN, UNKNOWN)


@dataclass
class QuestionItem(CandidateItem):
    """One question; its candidates are its answers."""

    span: tuple[int, int]  # first and last frame that show the answer, or NO_SPAN


class QuestionDataset(CandidateDataset[QuestionRecord, QuestionItem]):
    """Questions with their video and all answers.

    Raises:
        UserError: questions have different numbers of answers.
    """

    kind, label, record_type = "question", "right answer's index", QuestionRecord

    def inspect(self, records: Iterable[tuple[str, QuestionRecord]]) -> None:
        """See :class:`data.candidates.CandidateDataset`."""
        moments, self.num_answers = [], 0
        for id_, record in records:
            self.num_answers = self.num_answers or record.choices
            if record.choices != self.num_answers:
                raise UserError(
                    f"{self.kind} {id_} of {self.db.path} has {record.choices} answers, "
                    f"{self.kind} {self.ids[0]} has {self.num_answers}; all must have equally many"
                )
            self.target(id_, record)
            moment = parse_seconds(record.ts)
            moments += [(id_, moment)] if moment else []
        warn_of_clamped(moments, self.db.path)
        ends = ((moment, self.videos.seconds(self.video_of[id_])) for id_, moment in moments)
        warn_of_units(ends, self.db.path)

    def __getitem__(self, key: ItemKey | int) -> QuestionItem:
        id_ = self.ids[ItemKey.of(key).index]
        record = self.db.read(id_, self.record_type)
        separator = self.db.meta["SEP"]
        parts = [[separator, *part] for part in record.input_ids]
        question = list(chain(*parts[: record.shared]))
        video = self.videos(self.video_of[id_])
        seconds = parse_seconds(record.ts)
        return QuestionItem(
            ids=[id_],
            video=video,
            texts=[question + answer for answer in parts[record.shared :]],
            targets=[self.target(id_, record)],
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


class EventDataset(QuestionDataset):
    """Events with their video, one of which comes next."""

    kind, label, record_type = "example", "right event's index", EventRecord


def question_dataset(data_set: str) -> type[QuestionDataset]:
    """Return the class that reads a data set's questions."""
    return EventDataset if data_set == "vlep" else QuestionDataset
