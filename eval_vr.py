#!/usr/bin/env python
"""Rank a corpus of videos with a fine-tuned model: MSR-VTT; YC2R and VATEX-EN-R of VALUE.

python eval_vr.py --query_txt_db /txt/msrvtt_test.db --split test --vfeat_db /video/msrvtt \\
    --sub_txt_db /txt/msrvtt_subtitles.db --output_dir /storage/msrvtt --checkpoint 4000
"""

from config.config import VrEvalOptions
from eval_vcmr import RetrievalTask
from evaluation.ranking import SearchSettings
from model.vr import HeroForVr
from utils.errors import run_main

VIDEOS = RetrievalTask(VrEvalOptions, HeroForVr, SearchSettings.for_videos)
main = VIDEOS.evaluate

if __name__ == "__main__":
    run_main(main)
