"""Every task's training script, and options of two steps."""

import pretrain
import train_tvc
import train_vcmr
import train_videoQA
import train_violin
import train_vr

SCRIPTS = {
    "tvr": train_vcmr,
    "msrvtt_video_sub": train_vr,
    "tvqa": train_videoQA,
    "violin": train_violin,
    "tvc": train_tvc,
    "pretrain": pretrain,
}


SHORT = {"num_train_steps": 2, "valid_steps": 2, "n_workers": 0, "train_batch_size": 2}
