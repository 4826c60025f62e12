"""A short TVR training and its evaluation through the scripts, as a user runs them."""

import json
from pathlib import Path

import eval_vcmr
import train_vcmr


def train_and_evaluate(options: dict, folder: Path) -> tuple[Path, dict]:
    """Train two steps, validating after each, and evaluate the last checkpoint.

    Evaluation must give the last validation's metrics.

    Returns:
        The run's folder, and the metrics of the last validation.
    """
    short = {"num_train_steps": 2, "valid_steps": 1, "drop_svmr_prob": 0.0, "n_workers": 0}
    config, run = folder / "options.json", folder / "run"
    config.write_text(json.dumps(options | short))
    metrics = train_vcmr.main(["--config", str(config)])
    arguments = ["--output_dir", str(run), "--checkpoint", "2", "--split", "val"]
    evaluated = eval_vcmr.main([*arguments, "--n_workers", "0"])
    assert evaluated == {k: v for k, v in metrics.items() if not k.startswith("loss/")}
    return run, metrics
