#!/usr/bin/env python
"""Judge the statements of a split with a fine-tuned model: VIOLIN.

python eval_violin.py --query_txt_db /txt/violin_test.db/ --split test --vfeat_db /video/violin/ \\
    --sub_txt_db /txt/violin_subtitles.db/ --output_dir /storage/violin_default/ --checkpoint 6000
"""

from config.config import ViolinEvalOptions
from data.violin import StatementDataset
from eval_videoQA import AnswerTask
from model.violin import MODELS, HeroForStatements
from utils.errors import run_main

STATEMENTS = AnswerTask(
    ViolinEvalOptions,
    lambda _: StatementDataset,
    lambda options: HeroForStatements if options.VALUE else MODELS[options.task],
    "violin",
)
main = STATEMENTS.evaluate

if __name__ == "__main__":
    run_main(main)
