#!/usr/bin/env python
"""Judge the statements of a split with a fine-tuned model: VIOLIN.

python eval_violin.py --query_txt_db /txt/violin_test.db/ --split test --vfeat_db /video/violin/ \\
    --sub_txt_db /txt/violin_subtitles.db/ --output_dir /storage/violin_default/ --checkpoint 6000
"""

from config.config import ViolinEvalOptions, parse_options
from data.violin import StatementDataset
from eval_videoQA import Judging, evaluate_answers
from model.violin import MODELS, HeroForStatements
from utils.errors import run_main


def statements(options: ViolinEvalOptions) -> Judging:
    """Return how statements are judged; VALUE's heads have other names."""
    model_class = HeroForStatements if options.VALUE else MODELS[options.task]
    return Judging(StatementDataset, model_class, "violin")


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Write the results file; returns its metrics where the split has ground truth."""
    options = parse_options(ViolinEvalOptions, argv)
    return evaluate_answers(options, statements(options))


if __name__ == "__main__":
    run_main(main)
