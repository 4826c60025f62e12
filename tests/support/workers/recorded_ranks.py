"""Run on several ranks, or import: short trainings on the batches of two_ranks.json.

EXPECTED and WORLD are folders of a recorded world. Rank 0 writes {name: what :func:`train` found}
for each of NAMES to OUTPUT.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from data.pretraining import OBJECTIVES
from data.stores.lmdb_io import TextDb
from data.vcmr import MomentDataset, collate_moments
from data.videoQA import QuestionDataset
from engine.trainer import Task
from model.ranking_loss import RankingLoss
from model.vcmr import NEVER, MomentSchedule, ranking_gradient_factors
from tests.support.recorded import placed, recorded_source, recorded_vcmr
from tests.support.recorded_answers import TVQA
from tests.support.recorded_pretraining import Inputs, build
from tests.support.recorded_runs import StepRecorder, recorded_options
from utils.distributed import Communicator, setup

MicroStep = tuple[str, list[list[str]]]  # name of the objective; ids of every rank's items


@dataclass
class RecordedBatches:
    """A training as two_ranks.json describes it.

    Attributes:
        settings: of the run: rates, weights, hard negatives, …
        micro_steps: of all ranks.
        ranking_gradient: the option.
        emulated_ranks: ranks that each rank stands in for: a step's batches come so many times.
    """

    settings: dict[str, Any]
    micro_steps: list[MicroStep]
    ranking_gradient: str = "published"
    emulated_ranks: int = 1


def recorded_run(record: dict, name: str) -> RecordedBatches:
    """A run of two ranks, or its first step: ``step1``, ``step1_hard``, ``step1_with_spans``."""
    if name not in record["step1"]:
        settings = record["runs"][name]
        return RecordedBatches(
            settings, [(step["task"], step["items"]) for step in settings["micro_steps"]]
        )
    steps = record["step1"]["micro_steps"]["two_ranks"]
    return RecordedBatches(first_step_settings(record, name), [("tvr", step) for step in steps])


def shared_first_step(record: dict, name: str, ranks: int) -> RecordedBatches:
    """The same first step with one process's batches shared out over so many ranks."""
    steps = []
    for ids in record["step1"]["micro_steps"]["one_process"]:
        cuts = [round(len(ids) * rank / ranks) for rank in range(ranks + 1)]
        steps.append(("tvr", [ids[start:end] for start, end in pairwise(cuts)]))
    return RecordedBatches(first_step_settings(record, name), steps)


def first_step_settings(record: dict, name: str) -> dict[str, Any]:
    """Settings of a run of the first step alone, with or without spans."""
    settings = record["runs"]["tvr_hard" if name.endswith("hard") else "tvr"]
    spans = settings["loss_weights"]["st_ed"] if name.endswith("with_spans") else 0.0
    steps = record["step1"]["micro_steps"]["two_ranks"]
    changes = {"loss_weights": settings["loss_weights"] | {"st_ed": spans}}
    return settings | changes | {"accumulation": len(steps)}


def schedule_of(settings: dict[str, Any]) -> MomentSchedule:
    """Spans where they have a weight; hard negatives from the first step, or never."""
    schedule = MomentSchedule(RankingLoss("hinge", margin=0.1))
    if not settings.get("loss_weights", {}).get("st_ed"):
        schedule.span_start_step = NEVER
    if hard := settings.get("hard_negatives"):
        schedule.hard_start_steps, schedule.hard_weights = [0], [hard["weight"]]
        schedule.hard_pool_sizes = [hard["pool"]]
    return schedule


Collate = Callable[[str, Sequence[str]], Any]


def tvr(settings: dict[str, Any], expected: Path, world: Path) -> tuple[nn.Module, Collate]:
    """Model and batches of moment retrieval: items are queries."""
    source = recorded_source(world, settings["max_clip_len"])
    data = MomentDataset(TextDb(world / "txt_db" / "tvr_train.db"), source)
    place = {ids[0]: number for number, ids in enumerate(data.groups)}
    model = recorded_vcmr(expected, schedule_of(settings))
    return model, lambda _, ids: collate_moments([data[place[i]] for i in ids])


def tvqa(settings: dict[str, Any], expected: Path, world: Path) -> tuple[nn.Module, Collate]:
    """Model and batches of question answering: items are questions."""
    source = recorded_source(world, settings["max_clip_len"])
    data = QuestionDataset(TextDb(world / "txt_db" / "tvqa_train.db"), source, training=True)
    return TVQA.model(expected), lambda _, ids: data.collate([data[data.ids.index(i)] for i in ids])


def pretraining(settings: dict[str, Any], expected: Path, world: Path) -> tuple[nn.Module, Collate]:
    """Model and batches of all objectives: items are videos."""
    inputs = Inputs(json.loads((expected / "pretrain_inputs.json").read_text()), world)
    assert inputs.given["max_clip_len"] == settings["max_clip_len"]
    kinds = {
        "mlm": inputs.mlm,
        "mfm-nce": inputs.mfm,
        "mffr": inputs.mfm,
        "fom": inputs.fom,
        "vsm": inputs.vsm,
    }

    def collate(objective: str, vids: Sequence[str]) -> Any:
        items = {item.video.vid: item for item in kinds[objective]()}
        return OBJECTIVES[objective].batch([items[vid] for vid in vids])

    return build(expected, schedule_of(settings)), collate


def train(run: RecordedBatches, expected: Path, world: Path, comm: Communicator) -> dict[str, Any]:
    """Train on this rank's items of the batches.

    Returns:
        ``loss`` and ``parts`` (losses times their weights, by name) of every micro step and rank,
        ``grad_norm`` and ``lr`` of every step, ``moved``: how far each parameter went.
    """
    settings = run.settings
    make = {"tvr": tvr, "tvqa": tvqa}.get(run.micro_steps[0][0], pretraining)
    model, collate = make(settings, expected, world)
    model.comm = comm
    if comm.rank > 0:  # rank 0's weights must arrive
        torch.nn.init.zeros_(model.v_encoder.frame_transform.net[1].weight)
    accumulation = settings["accumulation"]
    steps = len(run.micro_steps) // accumulation

    def batches() -> Iterator[Any]:
        for number in range(steps):
            step = run.micro_steps[number * accumulation : (number + 1) * accumulation]
            for objective, items in step * run.emulated_ranks:
                yield placed(collate(objective, items[comm.rank]))

    task = Task(
        name="recorded",
        model=model,
        loader=batches(),
        loss_weights=dict.fromkeys(OBJECTIVES, 1.0) | settings.get("loss_weights", {}),
        validate=lambda step: {},
        set_step=getattr(model, "set_step", lambda step, micro_step: None),
        gradient_factors=ranking_gradient_factors(
            run.ranking_gradient, comm.size, run.emulated_ranks
        ),
    )
    options = recorded_options(
        steps, accumulation, rate=settings["learning_rate"], lr_mul=settings["lr_mul"]
    )
    with tempfile.TemporaryDirectory() as folder:
        recorder = StepRecorder(task, options, Path(folder), comm, run.emulated_ranks)
        result = {key: values.tolist() for key, values in recorder.run(steps).items()}
    ranks = comm.all_gather_object((recorder.losses, recorder.parts))
    names = [name for name, _ in model.named_parameters()]
    return result | {
        "loss": [*zip(*(losses for losses, _ in ranks))],
        "parts": [*zip(*(parts for _, parts in ranks))],
        "moved": dict(zip(names, recorder.changes(names).tolist())),
    }


def undivided_tvr(record: dict, world: Path, ranks: int) -> RecordedBatches:
    """The batches of one process's recorded training, shared out, with its gradient."""
    data = MomentDataset(TextDb(world / "txt_db" / "tvr_train.db"), recorded_source(world, 12))
    ids = [group[0] for group in data.groups]
    steps = []
    for first in range(0, 12 * 6, 6):
        batch = [ids[number % len(ids)] for number in range(first, first + 6)]
        share = len(batch) // ranks
        parts = [batch[rank * share : (rank + 1) * share] for rank in range(ranks)]
        steps.append(("tvr", parts))
    return RecordedBatches(record["runs"]["tvr"], steps, "undivided")


def batches_named(word: str, record: dict, world: Path, ranks: int) -> RecordedBatches:
    """Of ``RUN``, ``undivided``, or ``shared/RUN/RANKS THAT EACH ONE STANDS IN FOR``."""
    if word == "undivided":
        return undivided_tvr(record, world, ranks)
    if not word.startswith("shared/"):
        return recorded_run(record, word)
    _, name, emulated_ranks = word.split("/")
    return replace(shared_first_step(record, name, ranks), emulated_ranks=int(emulated_ranks))


def main(expected: Path, world: Path, output: Path, names: Sequence[str]) -> None:
    comm, _ = setup()
    record = json.loads((expected / "two_ranks.json").read_text())
    results = {
        name: train(batches_named(name, record, world, comm.size), expected, world, comm)
        for name in names
    }
    if comm.is_main:
        output.write_text(json.dumps(results))
    comm.shutdown()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), sys.argv[4:])
