"""Video retrieval: MSR-VTT (arXiv 2005.00200, section 4.3)."""

from torch import Tensor

from data.batch import MomentBatch
from model.vcmr import MomentRetrievalModel


class HeroForVr(MomentRetrievalModel):
    """Ranks videos for a query. The span head stays untrained; checkpoints hold its weights."""

    def forward(self, batch: MomentBatch) -> dict[str, Tensor]:
        """Return the two ranking losses."""
        return self.moment_losses(batch, spans=False)
