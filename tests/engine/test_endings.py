"""How a run ends: the best of its validations, its checkpoint, and what one does next."""

import json
import logging
import re
import shlex

import pytest
from tqdm import tqdm

import eval_vcmr
import train_vcmr
from config import pretraining, training
from config.options import option_names
from engine.endings import Validation, best_validation, validations
from engine.restore import RunFolder
from engine.run import Checkpoint
from tests.evaluation.test_golden_eval import evaluate, recorded_run
from tests.model.test_golden_videoqa import TVQA
from tests.test_readme import REPOSITORY, help_text
from utils.errors import UserError, run_main


@pytest.fixture
def run(tmp_path):
    """A run whose validations are written down by :func:`validated`."""
    (tmp_path / "log").mkdir()
    (tmp_path / "ckpt").mkdir()
    return RunFolder(tmp_path)


def validated(run, metric, values, kept=None):
    """Write metrics of steps, and the checkpoints of those that are ``kept`` (None: of all)."""
    with (run.log / "metrics.jsonl").open("a") as lines:
        for step, value in values.items():
            line = {"step": step, "name": f"valid/{metric}", "value": value}
            lines.write(json.dumps(line) + "\n")
    for step in values if kept is None else kept:
        run.checkpoint(step).touch()


@pytest.mark.parametrize("metric", ["VCMR/0.7-r1", "VR/r1", "accuracy", "CIDEr"])
def test_the_best_is_the_first_with_the_highest_main_metric(run, metric):
    validated(run, "test/" + metric, {10: 99.0})
    validated(run, "loss/total", {10: 99.0})
    validated(run, metric, {5: "a note", 10: 1.0, 20: 3.5, 30: 3.5, 40: 2.0, 50: None})
    assert best_validation(run) == Validation(20, metric, 3.5)
    assert Checkpoint.of(run, "best") == Checkpoint("20", "20")


def test_moments_count_before_videos(run):
    validated(run, "VR/r1", {1: 90.0, 2: 10.0})
    validated(run, "SVMR/0.7-r1", {1: 90.0, 2: 10.0})
    validated(run, "VCMR_nms_0.5/0.7-r1", {1: 90.0, 2: 10.0})
    validated(run, "VCMR/0.7-r1", {1: 5.0, 2: 6.0})
    assert best_validation(run).step == 2


def test_a_checkpoint_that_is_gone_is_passed_over_and_named(run, caplog):
    validated(run, "accuracy", {1: 70.0, 2: 60.0, 3: 50.0}, kept=[2, 3])
    assert best_validation(run).step == 2
    assert "better validations than step 2's are gone" in caplog.text


def test_a_run_without_a_best_says_why(run):
    with pytest.raises(UserError, match=r"metrics\.jsonl has no VCMR/0\.7-r1 or .*validation"):
        Checkpoint.of(run, "best")
    validated(run, "accuracy", {1: 70.0}, kept=[])
    with pytest.raises(UserError, match="ckpt has no checkpoint of a validated step, so none is"):
        Checkpoint.of(run, "best")


def test_labels_of_checkpoints(run):
    for name in ("model_step_7_final.pt", "other.pt"):
        (run.checkpoints / name).touch()
    assert Checkpoint.of(run, "7") == Checkpoint("7", "7")
    assert Checkpoint.of(run, "7_final").label == "7_final"
    assert Checkpoint.of(run, str(run.checkpoints / "other.pt")).label == "other"


TASKS = [getattr(training, f"{name}Options") for name in ("Vcmr", "Vr", "VideoQa", "Violin", "Tvc")]


@pytest.mark.parametrize("cls", [*TASKS, pretraining.PretrainOptions])
def test_what_comes_next_are_scripts_and_options_that_exist(cls, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    words = shlex.split(cls.NEXT.partition(": ")[2])
    if words[0] == "python":
        known = set(re.findall(r"--\w+", help_text(words[1])))
        assert {word for word in words if word.startswith("--")} <= known
    named = set(re.findall(r"\{(\w+)\}", cls.NEXT))
    assert "best" in named and named - {"best"} <= option_names(cls).keys()


# --- a real run ---------------------------------------------------------------------------------


def said(caplog):
    return [
        text
        for text in caplog.messages
        if re.search("training ended|best val|: python|finish", text)
    ]


@pytest.mark.golden
def test_a_run_ends_with_its_best_and_is_finished_then(tvr_options, tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "hero")
    config = tmp_path / "options.json"
    short = {"num_train_steps": 3, "valid_steps": 1, "n_workers": 0, "max_vcmr_video": 4}
    config.write_text(json.dumps(tvr_options | short))
    train_vcmr.main(["--config", str(config)])
    run = RunFolder(tmp_path / "run")
    values = {each.step: each.value for each in validations(run)}
    assert list(values) == [1, 2, 3]
    best = max(values, key=values.get)
    command = f"python eval_vcmr.py --output_dir {run.path} --checkpoint best"
    ending = [
        f"training ended after step 3: {run.checkpoint(3)}",
        f"best validation: step {best}, VCMR/0.7-r1 {values[best]:.2f}: {run.checkpoint(best)}",
        f"evaluate it: {command}",
    ]
    assert said(caplog) == ending

    caplog.clear()
    train_vcmr.main(["--config", str(config)])
    finished, *rest = said(caplog)
    assert rest == ending
    assert finished.startswith(f"{run.path} is finished, all 3 steps are done")
    more = shlex.split(finished.partition("more of them: ")[2])
    assert more == ["--num_train_steps", "6", "--allow_changed_options"]
    train_vcmr.main(["--config", str(config), *more])
    assert max(each.step for each in validations(run)) == 6

    metrics = eval_vcmr.main([*shlex.split(command)[2:], "--n_workers", "0"])
    best = best_validation(run)
    assert metrics["VCMR/0.7-r1"] == best.value
    assert (run.path / "results_val" / f"results_{best.step}_all.json").is_file()


def bars(capsys):
    """Names of the progress bars that were shown."""
    return set(re.findall(r"([\w ]+): +\d+%\|", capsys.readouterr().err))


@pytest.mark.golden
def test_evaluations_show_how_far_they_are(world, expected, tmp_path, capsys):
    evaluate(recorded_run(expected, world, "exp_tvr", tmp_path), world, "val")
    assert bars(capsys) == {"val videos", "val queries"}
    TVQA.evaluate_run(TVQA.run_folder(expected, tmp_path), world)
    assert bars(capsys) == {"val answers"}


def test_an_error_has_a_line_of_its_own(capsys):
    def main():
        bar = iter(tqdm([1, 2, 3], "val queries"))
        next(bar)
        try:
            raise UserError("the query is bad")
        except UserError as error:
            error.bar = bar  # as a traceback keeps the generator
            raise

    with pytest.raises(SystemExit):
        run_main(main)
    assert "\nerror: the query is bad\n" in capsys.readouterr().err
