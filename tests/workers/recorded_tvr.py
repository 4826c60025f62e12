"""Run on two ranks: train on the recorded TVR batches, each rank with its half of every batch.

EXPECTED and WORLD are folders of a recorded world; rank 0 writes losses, gradient norms and the
parameters' movements to OUTPUT.
"""

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from data.lmdb_io import TextDb
from data.vcmr import MomentDataset, collate_moments
from model.ranking_loss import RankingLoss
from model.vcmr import MomentSchedule
from tests.recorded import recorded_source, recorded_vcmr
from tests.recorded_runs import recorded_options
from utils.distributed import setup
from utils.engine import Task, Trainer
from utils.precision import Precision
from utils.restore import RunFolder
from utils.run import Run

BATCH, ACCUMULATION = 6, 2


def main(expected: Path, world: Path, output: Path, steps: int) -> None:
    comm, device = setup()
    model = recorded_vcmr(expected, MomentSchedule(ranking=RankingLoss("hinge", margin=0.1)))
    model.comm = comm
    if comm.rank == 1:  # rank 0's weights must arrive
        torch.nn.init.zeros_(model.video_query_linear.weight)
    data = MomentDataset(TextDb(world / "txt_db" / "tvr_train.db"), recorded_source(world, 12))
    mine = BATCH // comm.size
    loader = (
        collate_moments([data[(start + i) % len(data)] for i in range(mine)])
        for start in range(comm.rank * mine, BATCH * ACCUMULATION * (steps + 1), BATCH)
    )
    task = Task(
        name="tvr",
        model=model,
        loader=loader,
        loss_weights={"st_ed": 0.01, "neg_ctx": 8.0, "neg_q": 8.0},
        validate=lambda step: {},
        begin_batch=model.begin_batch,
    )
    options = recorded_options(steps, ACCUMULATION, rate=1e-4, lr_mul=1.0)
    run = Run(options, None, comm, device, Precision("fp32", device), RunFolder(output.parent))
    trainer = Trainer(task, run)
    start = {name: value.detach().clone() for name, value in model.named_parameters()}
    norms, losses = [], []
    for _ in range(steps):
        trainer._optimizer_step()
        means = trainer.running.take_means()
        norms.append(means["grad_norm"])
        losses.append(comm.all_reduce_(torch.tensor(means["loss/total"]), "mean").item())
    moved = {name: (p.detach() - start[name]).norm().item() for name, p in model.named_parameters()}
    if comm.is_main:
        output.write_text(json.dumps({"loss": losses, "grad_norm": norms, "moved": moved}))
    comm.shutdown()


if __name__ == "__main__":
    folders = [Path(argument) for argument in sys.argv[1:4]]
    main(*folders, steps=int(sys.argv[4]))
