"""Five answers to a question in one batch that holds the frames once, against five passes.

    python benchmarks/question_candidates.py [--questions 1] [--repeats 3]

The transformers must run once per answer in any case: each answer changes every subtitle's text.
What is shared is a frame's features (collating, moving to the device) and their projection. Both
ways must give the same logits. Times are medians of runs turn by turn in one process, full size.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor

from benchmarks.retrieval import median_seconds
from config.model_config import ModelConfig
from data.batch import QuestionBatch
from data.video import Subtitle, VideoItem
from data.videoQA import QuestionDataset, QuestionItem
from model.hero import FEATURE_SIZE
from model.videoQA import HeroForVideoQA

ANSWERS, FRAMES, SUBTITLES, TOKENS, QUESTION_TOKENS, ANSWER_TOKENS = 5, 50, 25, 12, 16, 8


def draw_question(rng: np.random.Generator) -> QuestionItem:
    """A question about a video of TVQA's usual size, with subtitles over two frames each."""

    def draw(count: int) -> list[int]:
        return rng.integers(4, 50000, size=count).tolist()

    features = rng.standard_normal((FRAMES, FEATURE_SIZE), dtype=np.float32)
    runs = np.split(np.arange(FRAMES), SUBTITLES)
    subtitles = [Subtitle(draw(TOKENS), run.tolist()) for run in runs]
    question = draw(QUESTION_TOKENS)
    texts = [question + draw(ANSWER_TOKENS) for _ in range(ANSWERS)]
    return QuestionItem(["question"], VideoItem("video", features, subtitles), texts, [0], (0, 1))


def one_answer(item: QuestionItem, number: int) -> QuestionItem:
    """The question with one of its answers only."""
    return QuestionItem(item.ids, item.video, [item.texts[number]], item.targets, item.span)


def collate_apart(items: list[QuestionItem]) -> list[QuestionBatch]:
    """A batch of its own for each answer."""
    return [
        QuestionDataset.collate([one_answer(item, number) for item in items])
        for number in range(ANSWERS)
    ]


def project(model: HeroForVideoQA, batch: QuestionBatch) -> tuple[Tensor, Tensor]:
    """Return what depends on a frame's features alone."""
    features, encoder = batch.candidates.video.features, model.v_encoder
    return encoder.f_encoder.img_embeddings.project(features), encoder.frame_transform(features)


def megabytes(batches: list[QuestionBatch]) -> float:
    """Features that travel to the device."""
    return sum(batch.candidates.video.features.nbytes for batch in batches) / 1e6


@torch.no_grad()
def main(argv: list[str] | None = None) -> dict[str, float]:
    """Print the table; returns how many times faster sharing is, by row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args(argv)
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    config = ModelConfig.from_json(Path(__file__).parents[1] / "config" / "hero_finetune.json")
    model = HeroForVideoQA(config).eval()
    items = [draw_question(rng) for _ in range(arguments.questions)]
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
        seconds = median_seconds({"shared": one, "apart": five}, arguments.repeats)
        rows.append((f"{name} (ms)", 1e3 * seconds["shared"], 1e3 * seconds["apart"]))
    ratios = {name: five / one for name, one, five in rows}
    table = [[*row, ratio] for row, ratio in zip(rows, ratios.values(), strict=True)]
    print(tabulate(table, headers=["", "shared", "five passes", "ratio"], floatfmt=".2f"))
    return ratios


if __name__ == "__main__":
    main()
