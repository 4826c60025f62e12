"""Captioning on the recorded world: options of a short training."""

from pathlib import Path


def tvc_options(world: Path, expected: Path) -> dict:
    """Without the length of the run and its folder."""
    databases = world / "txt_db"
    return {
        "train_db": str(databases / "tvc_train.db"),
        "val_db": str(databases / "tvc_val.db"),
        "val_ref": str(world / "ann" / "tvc_val.jsonl"),
        "sub_txt_db": str(databases / "tv_subtitles.db"),
        "vfeat_db": str(world / "video_db" / "tv"),
        "model_config": str(expected / "model_tvc.json"),
        "checkpoint": str(expected / "pretrained.pt"),
        "train_batch_size": 2,
        "max_gen_step": 4,
        "max_cap_per_vid": 3,
    }
