"""Another task on databases of statements: a model and its name, nothing else."""

import json
from typing import get_args

import pytest
import torch.nn.functional as F

import eval_violin
import train_violin
from config.training import VideoQaTask, ViolinTask
from model import videoQA, violin
from model.candidates import Answers, CandidateModel
from model.checkpoint import read_state_dict
from model.hero import FEATURE_SIZE
from model.layers import PredictionHead

pytestmark = pytest.mark.golden


class HeroForYesNo(CandidateModel):
    """Answers yes or no by the mean over a video's frames, each of which has met the question."""

    def __init__(self, config, feature_size=FEATURE_SIZE):
        super().__init__(config, feature_size)
        self.yes_no_head = PredictionHead(config.c_config.hidden_size, 2)

    def answer(self, batch):
        frames, mask = batch.candidates.runs.pad(self.candidate_frames(batch.candidates))
        logits = self.yes_no_head(frames.sum(dim=1) / mask.sum(dim=1, keepdim=True)).float()
        losses = F.cross_entropy(logits, batch.targets, ignore_index=-1, reduction="none")
        return Answers(logits[:, 1] - logits[:, 0], logits.argmax(dim=1), {"violin": losses})


@pytest.mark.parametrize("names", [(ViolinTask, violin), (VideoQaTask, videoQA)])
def test_every_task_has_a_model(names):
    task, module = names
    assert set(get_args(task)) <= module.MODELS.keys()


def test_a_run_trains_validates_and_evaluates_the_model_of_its_task(
    world, expected, tmp_path, monkeypatch
):
    monkeypatch.setitem(violin.MODELS, "violin", HeroForYesNo)
    databases = world / "txt_db"
    options = {
        "task": "violin",
        "train_query_txt_db": str(databases / "violin_train.db"),
        "val_query_txt_db": str(databases / "violin_val.db"),
        "sub_txt_db": str(databases / "tv_subtitles.db"),
        "vfeat_db": str(world / "video_db" / "tv"),
        "model_config": str(expected / "model_finetune.json"),
        "checkpoint": str(expected / "pretrained.pt"),
        "output_dir": str(tmp_path / "run"),
        "train_batch_size": 2,
        "num_train_steps": 2,
        "valid_steps": 1,
        "n_workers": 0,
    }
    (tmp_path / "options.json").write_text(json.dumps(options))
    metrics = train_violin.main(["--config", str(tmp_path / "options.json")])
    run = tmp_path / "run"
    evaluated = eval_violin.main(["--output_dir", str(run), "--checkpoint", "2", "--n_workers=0"])
    assert evaluated == {name: metrics[name] for name in ("accuracy", "loss/violin")}
    assert 0 < metrics["loss/violin"] < 5
    first, last = (read_state_dict(run / "ckpt" / f"model_step_{step}.pt") for step in (1, 2))
    heads = [name for name in last if name.startswith("yes_no_head.")]
    assert len(heads) == 6
    assert any((first[name] != last[name]).any() for name in heads)
