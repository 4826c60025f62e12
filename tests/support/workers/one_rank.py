"""Run as the only rank of torchrun, on $HERO_TEST_DEVICE: NCCL on a GPU, Gloo on a CPU."""

import copy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import torch
from torch import nn

from tests.support.recorded import DEVICE
from utils.distributed import broadcast_parameters, broadcast_state, gather_with_grad, setup


def main() -> None:
    """Every collective that a training calls, on tensors of the device."""
    comm, device = setup(seed=3)
    assert (comm.backend, comm.size, device.type) == ("torch", 1, DEVICE.type)
    values = torch.arange(4.0, device=device)
    for op in ("sum", "mean", "max"):
        assert comm.all_reduce_(values.clone(), op).tolist() == [0, 1, 2, 3]
    pending = comm.all_reduce_async(values, "mean", "gradients.0")
    pending.wait()
    assert comm.broadcast_(values).tolist() == comm.all_gather(values).tolist() == [0, 1, 2, 3]
    halves = values.to(torch.bfloat16)
    assert comm.all_gather(halves).dtype == torch.bfloat16
    assert comm.all_gather_object({"rank": 0}) == [{"rank": 0}]
    layer = nn.Linear(4, 2).to(device)
    before = copy.deepcopy(layer.state_dict())
    broadcast_parameters(comm, layer)
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    rows = torch.ones(3, 4, device=device, requires_grad=True)
    gather_with_grad(comm, rows).sum().backward()
    assert rows.grad.tolist() == [[1.0] * 4] * 3
    assert broadcast_state(comm, {"weights": values.cpu()})["weights"].tolist() == [0, 1, 2, 3]
    comm.barrier()
    comm.shutdown()
    print(f"one rank on {device.type}: done")


if __name__ == "__main__":
    main()
