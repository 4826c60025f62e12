"""Statements that a video entails or contradicts: VIOLIN (arXiv 2003.11618)."""

from collections.abc import Sequence

import torch

from data.batch import StatementBatch
from data.candidates import UNKNOWN, CandidateDataset, CandidateItem, pack_candidates
from data.loader import ItemKey
from data.stores.records import StatementRecord
from utils.names import partner_id


class StatementDataset(CandidateDataset[StatementRecord, CandidateItem]):
    """Statements with their video; in training with the partner, of any length, too.

    A statement whose partner is missing or about another video comes alone.
    """

    kind, label, record_type = "statement", "label", StatementRecord
    in_pairs = True

    def __getitem__(self, key: ItemKey | int) -> CandidateItem:
        id_ = self.ids[ItemKey.of(key).index]
        ids = [id_, *self._partner(id_)] if self.training and self.in_pairs else [id_]
        records = [self.db.read(one, StatementRecord) for one in ids]
        return CandidateItem(
            ids=ids,
            video=self.videos(self.video_of[id_]),
            texts=[[self.db.meta["SEP"], *record.input_ids] for record in records],
            targets=[self.target(*one) for one in zip(ids, records, strict=True)],
        )

    def _partner(self, id_: str) -> list[str]:
        partner = partner_id(id_)
        if partner is None or partner not in self.db.side("id2len.json"):
            return []
        return [partner] if self.video_of.get(partner) == self.video_of[id_] else []

    @staticmethod
    def collate(items: Sequence[CandidateItem]) -> StatementBatch:
        """Pack statements."""
        targets = [target for item in items for target in item.targets]
        return StatementBatch(
            ids=[id_ for item in items for id_ in item.ids],
            candidates=pack_candidates(items),
            targets=torch.tensor(targets),
            counts={"violin": len(targets) - targets.count(UNKNOWN)},
        )


class SingleStatementDataset(StatementDataset):
    """Statements one by one, also in training, as in VALUE."""

    in_pairs = False
