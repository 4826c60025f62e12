"""Options that all published recipes share, those of HERO and those of VALUE."""

EVERY = {
    "dropout": 0.1,
    "weight_decay": 0.01,
    "grad_norm": 1.0,
    "seed": 77,
    "fp16": True,
    "n_workers": 4,
    "pin_mem": True,
    "optim": "adamw",
    "betas": [0.9, 0.98],
    "vfeat_version": "resnet_slowfast",
    "compressed_db": False,
}
RANKING = {
    "ranking_loss_type": "hinge",
    "margin": 0.1,
    "use_all_neg": True,
    "hard_neg_weights": [10.0],
}
SEARCH = {
    "distributed_eval": True,
    "vcmr_eval_video_batch_size": 50,
    "vcmr_eval_q_batch_size": 80,
}
