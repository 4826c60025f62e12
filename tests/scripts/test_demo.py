"""The demo: its report by hand, and the whole way on a tiny corpus."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation.chance import MomentBounds
from evaluation.retrieval_metrics import annotated_spans
from scripts.demo import ROOT, SHORT_NAMES, call, main, run_demo, with_seeds
from scripts.demo_corpus.demo_tasks import demo_tasks
from scripts.demo_corpus.moment_report import MomentRun, plot_moments, recall_table
from scripts.demo_corpus.multitask_demo import MultitaskTask
from scripts.demo_corpus.pretrain_demo import PRETRAINED, SCRATCH, PretrainTask
from scripts.demo_corpus.search_demo import SearchTask
from scripts.preparation.datasets import catalogue
from utils.errors import UserError
from utils.files import write_json, write_jsonl


@pytest.fixture
def moment_run(tmp_path) -> MomentRun:
    """Two queries on a pool of two videos of four frames; a third video is not in the pool."""
    spans = {1: ("a", [0.0, 3.0]), 2: ("b", [0.0, 3.0])}
    write_jsonl(
        tmp_path / "val.jsonl",
        [
            {"vid_name": vid, "duration": 6.0, "ts": span, "desc": "Ada sings.", "desc_id": id_}
            for id_, (vid, span) in spans.items()
        ],
    )
    write_jsonl(
        tmp_path / "subtitles.jsonl",
        [{"vid_name": "a", "sub": [{"text": " La", "start": 0.5, "end": 2.0}]}],
    )
    write_json(tmp_path / "vid2nframe.json", {"a": 4, "b": 4, "c": 9})
    entries = [
        {"desc_id": id_, "desc": "", "predictions": [[7, 0.0, 3.0, 0.9], [5, 1.5, 6.0, 0.2]]}
        for id_ in spans
    ]
    lists = dict.fromkeys(("VCMR", "SVMR", "VR"), entries)
    write_json(tmp_path / "results.json", {"video2idx": {"a": 7, "b": 5}} | lists)
    metrics = {"VCMR": {"0.5-r1": 50.0}, "SVMR": {"0.5-r1": 80.0}, "VR": {"r1": 50.0}}
    write_json(tmp_path / "metrics.json", metrics)
    return MomentRun(
        *(tmp_path / name for name in ("results.json", "metrics.json", "val.jsonl")),
        *(tmp_path / name for name in ("subtitles.jsonl", "vid2nframe.json")),
        MomentBounds(interval=1.5, min_pred_l=1, max_pred_l=3),
    )


def test_recall_stands_beside_chance_of_the_pool(moment_run):
    rows = [line.split() for line in recall_table(moment_run).splitlines()[2:]]
    # 5 allowed moments a video, 2 of them right (see test_chance); the third video does not count.
    assert rows == [
        ["VCMR", "0.5-r1", "50.0", "20.00", "×", "2.5"],
        ["SVMR", "0.5-r1", "80.0", "40.00", "×", "2.0"],
        ["VR", "r1", "50.0", "50.00", "×", "1.0"],
    ]


def test_the_picture_is_a_png(moment_run, tmp_path):
    picture = tmp_path / "moments.png"
    plot_moments(moment_run, picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_query_of_several_annotators_keeps_them_all():
    row = {"vid_name": "a", "ts": [[0, 5], [0, 5], [5, 10], [0, 10]]}
    assert annotated_spans(row["ts"]) == row["ts"]


def test_a_run_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(UserError, match="has no checkpoint"):
        demo_tasks(tmp_path)["tvr"].last_checkpoint()


@pytest.mark.parametrize("task", demo_tasks(Path("demo")).values(), ids=lambda task: task.name)
def test_every_task_calls_scripts_and_a_recipe_that_exist(task, monkeypatch):
    monkeypatch.setattr(SearchTask, "truth", lambda self: [{"sentence": "It rains."}])
    commands = [*task.preparation("tiny"), *task.evaluation(1)]
    scripts = [task.train, *(command[0] for _, command in commands)]
    assert all((ROOT / script).is_file() for script in scripts)
    assert task.recipe(task.name) == task.recipes / f"debug-{task.name}.json"
    assert (ROOT / task.recipe(task.name)).is_file()
    assert catalogue().datasets.keys() >= set(task.data)


def test_short_names_mean_tasks_that_exist():
    assert set(SHORT_NAMES.values()) <= set(demo_tasks(Path("demo")))
    assert not set(SHORT_NAMES) & set(demo_tasks(Path("demo")))


@pytest.mark.parametrize("name", demo_tasks(Path("demo")))
def test_a_recipe_is_moved_to_another_folder(tmp_path, name):
    moved = demo_tasks(tmp_path)[name].recipe(name).read_text()
    recipe = (ROOT / demo_tasks(Path("demo"))[name].recipe(name)).read_text()
    assert json.loads(moved) == json.loads(recipe.replace('"demo/', f'"{tmp_path}/'))
    assert '"demo/' in recipe


@pytest.fixture
def transfer(tmp_path) -> PretrainTask:
    """Two seeds of twenty steps, with their metrics but without a run."""
    task = replace(demo_tasks(tmp_path)["pretrain"], finetune_steps=20, seeds=(1, 2))
    recalls = {PRETRAINED: (30.0, 41.0), SCRATCH: (12.0, 11.0)}
    for start, values in recalls.items():
        for seed, value in zip(task.seeds, values, strict=True):
            results = task.folder(start, seed, 8) / "results"
            write_json(results / "metrics_20.json", {"VR": {"r1": 0.0, "r5": value}})
            pool = {f"video{index}": index for index in range(40)}
            write_json(results / "results_20_all.json", {"video2idx": pool})
    return task


def test_pretrained_and_scratch_stand_beside_chance(transfer):
    rows = [line.split() for line in transfer.table(8).splitlines()[2:]]
    assert rows == [
        ["pre-trained", "30.0", "41.0", "35.5"],
        ["scratch", "12.0", "11.0", "11.5"],
        ["chance", "12.5"],  # 5 of 40 videos
    ]


def test_both_starts_differ_in_the_checkpoint_only(transfer):
    with_checkpoint, without = (command for _, command in list(transfer.evaluation(8))[:2])
    place = with_checkpoint.index("--checkpoint")
    assert with_checkpoint[place + 1] == transfer.run / "ckpt" / "model_step_8.pt"
    del with_checkpoint[place : place + 2]
    folders = []
    for command in (with_checkpoint, without):
        folders.append(command.pop(command.index("--output_dir") + 1))
    assert with_checkpoint == without
    assert folders[0] != folders[1]


@pytest.mark.parametrize(("name", "checkpoint"), [("pretrain", 9), ("pretrain_ht", 8)])
def test_another_checkpoint_has_other_folders(transfer, name, checkpoint):
    later = replace(transfer, name=name)
    assert later.folder(PRETRAINED, 1, checkpoint) != transfer.folder(PRETRAINED, 1, 8)
    assert later.folder(SCRATCH, 1, checkpoint) == transfer.folder(SCRATCH, 1, 8)


@pytest.mark.slow
def test_pretraining_then_fine_tuning(tmp_path, capfd):
    """A few steps of each on tiny corpora: TV, and long videos in shards."""
    task = replace(demo_tasks(tmp_path)["pretrain_ht"], finetune_steps=2, seeds=(1,))
    quick = ["--num_train_steps", "2", "--warmup_steps", "1", "--valid_steps", "2"]
    run_demo(task, "tiny", quick)
    printed = capfd.readouterr().out
    assert "VR R@5 (%) of tvr after 2 steps" in printed
    assert "vsm_tv_all/loss" in printed
    assert "vsm_ht_clips/loss" in printed
    log = task.folder(PRETRAINED, 1, 2) / "log" / "log.txt"
    assert "model_step_2.pt" in log.read_text()


@pytest.mark.slow
def test_the_whole_way(tmp_path, capfd):
    """A few steps on a tiny corpus; a second call goes on where the first one was."""
    quick = ["--num_train_steps", "2", "--warmup_steps", "1", "--valid_steps", "2"]
    arguments = ["--task", "tvr", "--size", "tiny", "--output", str(tmp_path), *quick]
    (tmp_path / "runs").write_text("in the way of the run\n")
    with pytest.raises(UserError, match="“Train” failed"):
        main(arguments)
    printed = capfd.readouterr().out
    assert "txt_db/tvr_train.db: done" in printed
    (tmp_path / "runs").unlink()
    main(arguments)
    printed = capfd.readouterr().out
    assert (
        f"python scripts/prepare_data.py --dataset tvr --from raw --storage {tmp_path}" in printed
    )
    assert "nothing to do: all is in" in printed
    assert f"python train_vcmr.py --config {tmp_path}/debug-tvr.json" in printed
    assert "chance" in printed
    metrics = json.loads((tmp_path / "runs/tvr/results_val/metrics_2.json").read_text())
    assert set(metrics) >= {"VCMR", "SVMR", "VR"}
    assert (tmp_path / "tvr_moments.png").exists()


@pytest.mark.slow
def test_the_whole_way_of_a_value_task(tmp_path, capfd):
    """By its own scripts and recipe, from files in its own folders to recalls beside chance."""
    quick = ["--num_train_steps", "2", "--warmup_steps", "1", "--valid_steps", "2"]
    main(["--task", "yc2r", "--size", "tiny", "--output", str(tmp_path), *quick])
    printed = capfd.readouterr().out
    assert f"python train_retrieval.py --config {tmp_path}/debug-yc2r.json" in printed
    assert "python eval_vr.py --split val" in printed
    scores = json.loads((tmp_path / "runs/yc2r/results_yc2r_val/scores_2.json").read_text())
    rows = [line.split() for line in printed.splitlines() if line.startswith(("r1 ", "AveR"))]
    # Six videos: one of them in first place, five among the first five, all among the first ten.
    found = [f"{scores[f'valid_val_VR/VR_{name}']:.1f}" for name in ("r1", "AveR")]
    assert rows == [["r1", found[0], "16.7"], ["AveR", found[1], "66.7"]]
    assert (tmp_path / "video_db/yc2/id2nframe_1.5.json").is_file()


def test_a_failed_command_is_named(tmp_path, capfd):
    with pytest.raises(UserError, match="“Fail” failed with exit code 2"):
        call("Fail", "no_such_script.py", "--name", "two words")
    assert "python no_such_script.py --name 'two words'" in capfd.readouterr().out


@pytest.fixture
def multitask(tmp_path) -> MultitaskTask:
    """Two data sets and two seeds of ten steps together, with their scores but without a run."""
    of_all = demo_tasks(tmp_path)["multitask"]
    task = with_seeds(replace(of_all, tasks=of_all.tasks[::2][:2]), [1, 2])
    assert [each.name for each in task.tasks] == ["yc2r", "vlep"]
    together = {1: (50.0, 70.0), 2: (60.0, 80.0)}
    alone = {1: (40.0, 60.0), 2: (42.0, 61.0)}
    for seed in (1, 2):
        names = ("valid/yc2r/VR/AveR", "valid/vlep/accuracy")
        rows = [
            {"step": step, "name": name, "value": value if step == 10 else 1.0}
            for name, value in zip(names, together[seed], strict=True)
            for step in (5, 10)
        ]
        write_jsonl(task.folder("multitask", seed) / "log" / "metrics.jsonl", rows)
        for each, name, value in zip(task.tasks, names, alone[seed], strict=True):
            row = {"step": 5, "name": name, "value": value}
            write_jsonl(task.folder(each.name, seed) / "log" / "metrics.jsonl", [row])
    pool = {f"v{number}": [10.0, number] for number in range(20)}
    write_json(tmp_path / "ann" / "yc2_vid2dur_idx.json", {"val": pool})
    return task


def test_many_tasks_stand_beside_one_and_chance(multitask):
    lines = multitask.table(10).splitlines()[2:]
    assert [re.split(r"\s{2,}", line.strip()) for line in lines] == [
        # One video of 20: 5, 25 and 50 percent among the first 1, 5 and 10.
        ["yc2r", "AveR", "55.0 (50.0 60.0)", "41.0 (40.0 42.0)", "26.7"],
        ["vlep", "accuracy", "75.0 (70.0 80.0)", "60.5 (60.0 61.0)", "50.0"],
        ["Meta-Ave", "mean", "65.0", "50.8", "38.3"],
    ]


def test_each_task_alone_has_as_many_steps_as_together(multitask):
    commands = [command for _, command in multitask.evaluation(10)]
    steps = [command[command.index("--num_train_steps") + 1] for command in commands]
    folders = [command[command.index("--output_dir") + 1] for command in commands]
    assert steps == [10, 5, 5, 5, 5]  # the first is the second seed's of all
    assert len({*folders, multitask.run}) == 6
    assert multitask.train_options == ["--seed", 1, "--output_dir", multitask.run]


def test_seeds_are_for_demos_that_compare(tmp_path):
    with pytest.raises(UserError, match="yc2r has --seed"):
        with_seeds(demo_tasks(tmp_path)["yc2r"], [1, 2])


def test_one_seed_is_passed_to_the_training_script(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    given = []
    monkeypatch.setattr("scripts.demo.run_demo", lambda task, size, words: given.extend(words))
    main(["--task", "how2r", "--output", str(tmp_path), "--seed", "5"])
    assert given == ["--seed", "5"]
