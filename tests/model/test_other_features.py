"""Features of other extractors: a checkpoint of another width goes on with them."""

import numpy as np
import pytest
import torch

import eval_vcmr
from data.stores.lmdb_io import FeatureDb, FeatureDbWriter
from tests.model.test_checkpoint import OF_WIDTH
from tests.training.test_train_vcmr import results, train
from utils.errors import UserError
from utils.files import read_json

pytestmark = pytest.mark.golden

WIDTH = 32


@pytest.fixture
def other_features(world, tmp_path):
    """The recorded videos with features 32 values wide."""
    source = FeatureDb(world / "video_db" / "tv")
    assert source.width == 4352
    mix = np.random.default_rng(0).standard_normal((source.width, WIDTH)).astype(np.float32) / 66
    with FeatureDbWriter(tmp_path / "other") as other:
        for vid in source.id2nframe:
            other.put(vid, source[vid] @ mix)
    return str(tmp_path / "other")


def evaluate(run, *more):
    arguments = ["--output_dir", str(run), "--checkpoint", "2", "--split", "val"]
    return eval_vcmr.main([*arguments, "--n_workers", "0", *more])


def test_a_checkpoint_is_fine_tuned_on_other_features(tvr_options, other_features, tmp_path):
    changes = {"vfeat_db": other_features, "learning_rate": 1e-5, "train_batch_size": 8}
    metrics = train(tvr_options, tmp_path, reinit_feature_layers=True, **changes)
    run = tmp_path / "run"
    (report,) = [
        line
        for line in (run / "log" / "log.txt").read_text().splitlines()
        if "reinitialised" in line
    ]
    assert all(name in report for name in OF_WIDTH)

    start = torch.load(tvr_options["checkpoint"], weights_only=True)
    trained = torch.load(run / "ckpt" / "model_step_2.pt", weights_only=True)
    for name, value in trained.items():
        if name in OF_WIDTH:
            assert value.shape[OF_WIDTH[name]] == WIDTH, name
        elif name in start and "position_embeddings" not in name:
            torch.testing.assert_close(value, start[name].float(), atol=1e-4, rtol=0, msg=name)

    evaluated = evaluate(run)
    assert evaluated == {k: v for k, v in metrics.items() if not k.startswith("loss/")}
    assert results(run, "val", 2) == read_json(run / "results" / "results_2_all.json")
    with pytest.raises(UserError, match="trained on features 32 values wide, these are 4352 wide"):
        evaluate(run, "--vfeat_db", tvr_options["vfeat_db"])
