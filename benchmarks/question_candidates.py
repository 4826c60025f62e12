"""Five answers to a question in one batch that holds the frames once, against five passes.

    python benchmarks/question_candidates.py [--questions 1] [--repeats 3]

The transformers must run once per answer in any case: each answer changes every subtitle's text.
What is shared is a frame's features (collating, moving to the device) and their projection. Both
versions give the same logits. Full size; CPU times are medians of runs in turns in one process.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor

from benchmarks.cases import ANSWERS, draw_question
from benchmarks.common import make_parser, median_times, model_config
from data.batch import QuestionBatch
from data.videoQA import QuestionDataset, QuestionItem
from model.videoQA import HeroForVideoQA


def collate_apart(items: list[QuestionItem]) -> list[QuestionBatch]:
    """Return a batch for each answer, with the questions' other answers left out."""
    return [
        QuestionDataset.collate([replace(item, texts=[item.texts[number]]) for item in items])
        for number in range(ANSWERS)
    ]


def project(model: HeroForVideoQA, batch: QuestionBatch) -> tuple[Tensor, Tensor]:
    """Return the projections of the frames' features."""
    features, encoder = batch.candidates.video.features, model.v_encoder
    return encoder.f_encoder.img_embeddings.project(features), encoder.frame_transform(features)


def megabytes(batches: list[QuestionBatch]) -> float:
    """Return the size of the features that are copied to the device."""
    return sum(batch.candidates.video.features.nbytes for batch in batches) / 1e6


@torch.no_grad()
def main() -> None:
    options = make_parser(__doc__, questions=1, repeats=3).parse_args()
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    model = HeroForVideoQA(model_config()).eval()
    items = [draw_question(rng) for _ in range(options.questions)]
    shared, apart = QuestionDataset.collate(items), collate_apart(items)
    together = model.answer(shared).scores
    separate = torch.cat([model.answer(batch).scores for batch in apart], dim=1)
    torch.testing.assert_close(together, separate, atol=1e-4, rtol=1e-4)
    print(f"largest difference of the logits: {(together - separate).abs().max():.1e}")
    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "collate": (lambda: QuestionDataset.collate(items), lambda: collate_apart(items)),
        "project features": (
            lambda: project(model, shared),
            lambda: [project(model, batch) for batch in apart],
        ),
        "answer": (
            lambda: model.answer(shared),
            lambda: [model.answer(batch) for batch in apart],
        ),
    }
    rows = [("features (MB)", megabytes([shared]), megabytes(apart))]
    for name, (one, five) in pairs.items():
        runs = {"shared": one, "apart": five}
        seconds = median_times(runs, options.repeats, time.process_time)
        rows.append((f"{name} (ms)", 1e3 * seconds["shared"], 1e3 * seconds["apart"]))
    table = [(name, one, five, five / one) for name, one, five in rows]
    print(tabulate(table, headers=["", "shared", "five passes", "ratio"], floatfmt=".2f"))


if __name__ == "__main__":
    main()
