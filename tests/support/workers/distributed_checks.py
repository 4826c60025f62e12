"""Run on two ranks: every ``check_*`` below, and write {check: "" or traceback} to FOLDER/RANK."""

import copy
import json
import os
import sys
import traceback
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from optim.adamw import AdamW
from optim.gradients import drop_gradients, fill_gradients
from utils.distributed import (
    Communicator,
    GradientReducer,
    Pending,
    broadcast_parameters,
    broadcast_state,
    gather_with_grad,
    setup,
)

ROWS = (3, 2)  # of the batch, on rank 0 and rank 1


def check_ranks(comm: Communicator) -> None:
    assert comm.size == 2 and comm.rank == comm.local_rank == int(os.environ["EXPECTED_RANK"])
    assert comm.is_main == (comm.rank == 0)
    assert comm.backend == os.environ["EXPECTED_BACKEND"]


def check_seeds_differ(comm: Communicator) -> None:
    first, second = comm.all_gather_object(torch.rand(1).item())
    assert first != second


def check_all_reduce(comm: Communicator) -> None:
    mine = torch.tensor([1.0, 10.0]) * (comm.rank + 1)
    assert comm.all_reduce_(mine.clone(), "sum").tolist() == [3.0, 30.0]
    assert comm.all_reduce_(mine.clone(), "mean").tolist() == [1.5, 15.0]
    assert comm.all_reduce_(mine.clone(), "max").tolist() == [2.0, 20.0]
    assert comm.all_reduce_(torch.tensor([comm.rank + 1], dtype=torch.int32)).tolist() == [3]


def check_all_reduce_async(comm: Communicator) -> None:
    tensors = [torch.full((4,), float(comm.rank + i)) for i in range(3)]
    pending = [comm.all_reduce_async(tensor, "mean") for tensor in tensors]
    for handle in pending:
        handle.wait()
    assert [tensor[0].item() for tensor in tensors] == [0.5, 1.5, 2.5]


def check_broadcast(comm: Communicator) -> None:
    assert comm.broadcast_(torch.tensor([comm.rank, 7])).tolist() == [0, 7]


def check_objects(comm: Communicator) -> None:
    mine = {"rank": comm.rank, "text": "x" * (1 + 1000 * comm.rank)}
    assert [len(o["text"]) for o in comm.all_gather_object(mine)] == [1, 1001]
    assert comm.broadcast_object(mine)["rank"] == 0
    assert comm.broadcast_object(None) is None


def check_gather_of_different_lengths(comm: Communicator) -> None:
    mine = torch.arange(2.0 * (comm.rank + 1)).view(comm.rank + 1, 2)
    assert comm.all_gather(mine).tolist() == [[0, 1], [0, 1], [2, 3]]
    assert comm.all_gather(torch.tensor(comm.rank)).tolist() == [0, 1]


def check_gather_where_one_rank_has_nothing(comm: Communicator) -> None:
    mine = torch.full((2 * comm.rank, 3), 5, dtype=torch.int64)
    gathered = comm.all_gather(mine)
    assert gathered.tolist() == [[5, 5, 5], [5, 5, 5]] and gathered.dtype == torch.int64
    assert comm.all_gather(torch.empty(0, 3)).shape == (0, 3)


def check_gather_keeps_the_dtype(comm: Communicator) -> None:
    for dtype in (torch.bool, torch.bfloat16, torch.float16, torch.uint8):
        gathered = comm.all_gather(torch.full((comm.rank + 1, 1), comm.rank).to(dtype))
        assert gathered.dtype == dtype and gathered.flatten().tolist() == [0, 1, 1]


def check_gather_with_grad(comm: Communicator) -> None:
    """A loss over all pairs of rows, with parameters before and after the gathering."""

    def loss_of(encoded: Tensor, scale: Tensor) -> Tensor:
        return ((encoded @ encoded.T) * scale).tanh().mean()

    whole = torch.randn(sum(ROWS), 4, generator=torch.Generator().manual_seed(5))
    torch.manual_seed(6)
    encoder, scale = nn.Linear(4, 3), nn.Parameter(torch.tensor(0.7))
    loss = loss_of(encoder(whole), scale)
    expected = torch.autograd.grad(loss, [*encoder.parameters(), scale])

    gathered = gather_with_grad(comm, encoder(whole.split(ROWS)[comm.rank]))
    its_loss = loss_of(gathered, scale)
    torch.testing.assert_close(its_loss, loss)
    mine = torch.autograd.grad(its_loss, [*encoder.parameters(), scale])
    *behind, between = (comm.all_reduce_(gradient.contiguous(), "mean") for gradient in mine)
    for averaged, single in zip(behind, expected[:-1], strict=True):
        torch.testing.assert_close(averaged, single / comm.size)
    torch.testing.assert_close(between, expected[-1])


def check_broadcast_parameters(comm: Communicator) -> None:
    torch.manual_seed(comm.rank)
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    module[1].num_batches_tracked += 5 + comm.rank
    broadcast_parameters(comm, module)
    first, second = comm.all_gather_object(module.state_dict())
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert second["1.num_batches_tracked"] == 5


def check_broadcast_state(comm: Communicator) -> None:
    """Rank 0's alone; the others' are of no account."""
    tensors = {"half": torch.ones(2, 3).bfloat16(), "number": torch.tensor(7)}
    state = {"step": 4, "random": [tensors, torch.arange(5, dtype=torch.uint8)], "betas": (0.9, 1)}
    got = broadcast_state(comm, state if comm.rank == 0 else {"step": 1})
    assert (got["step"], got["betas"]) == (4, (0.9, 1))
    named, counted = got["random"]
    assert named["half"].dtype == torch.bfloat16 and named["half"].tolist() == [[1.0] * 3] * 2
    assert named["number"].item() == 7 and counted.tolist() == [0, 1, 2, 3, 4]
    assert broadcast_state(comm, None) is None


class Net(nn.Module):
    """Layers used in every step, heads used in some, and one that never is."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(*[nn.Linear(4, 4) for _ in range(4)])
        self.heads = nn.ModuleList(nn.Linear(4, 1) for _ in range(3))
        self.never = nn.Linear(4, 1)

    def forward(self, rows: Tensor, heads: tuple[int, ...]) -> Tensor:
        hidden = self.body(rows).tanh()
        return hidden.square().mean() + sum(self.heads[h](hidden).mean() for h in heads)


# Heads used in each step by (rank 0, rank 1).
STEPS = [((0,), (0,)), ((0,), (0, 1)), ((0, 1), (0,)), ((), ()), ((0,), (1,)), ((0,), (0,))]


def step_rows(step: int, micro: int, rank: int) -> Tensor:
    generator = torch.Generator().manual_seed(100 * step + 10 * micro + rank)
    return torch.randn(ROWS[rank], 4, generator=generator)


def average_gradients(net: Net, step: int, micro_steps: int) -> list[Tensor | None]:
    """What one process gets that computes both ranks' losses and halves their sum."""
    twin = copy.deepcopy(net)
    twin.zero_grad()
    for micro in range(micro_steps):
        for rank, heads in enumerate(STEPS[step]):
            (twin(step_rows(step, micro, rank), heads) / 2).backward()
    return [parameter.grad for parameter in twin.parameters()]


def train(comm: Communicator, overlap: bool, micro_steps: int) -> None:
    torch.manual_seed(0)
    net, twin = Net(), Net()
    twin.load_state_dict(net.state_dict())
    optimizers = AdamW(net.parameters(), lr=0.1), AdamW(twin.parameters(), lr=0.1)
    # Some hundred bytes: several buckets of a few parameters each.
    reducer = GradientReducer(comm, net.parameters(), bucket_mb=1e-4, overlap=overlap)
    for step, heads in enumerate(STEPS):
        for optimizer in optimizers:
            drop_gradients(optimizer)
        with reducer.accumulate():
            for micro in range(micro_steps - 1):
                net(step_rows(step, micro, comm.rank), heads[comm.rank]).backward()
        net(step_rows(step, micro_steps - 1, comm.rank), heads[comm.rank]).backward()
        reducer.finish()
        expected = average_gradients(twin, step, micro_steps)
        for mine, theirs, copied in zip(net.parameters(), expected, twin.parameters()):
            if theirs is not None:
                copied.grad = theirs
                torch.testing.assert_close(mine.grad, theirs)
        for optimizer in optimizers:
            fill_gradients(optimizer)
        for mine, copied in zip(net.parameters(), twin.parameters()):
            assert (mine.grad is None) == (copied.grad is None)
        for optimizer in optimizers:
            optimizer.step()
    for mine, theirs in zip(net.parameters(), twin.parameters()):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)
    assert net.never.weight.grad is None and net.heads[2].weight.grad is None


def check_reducer_during_backward(comm: Communicator) -> None:
    train(comm, overlap=True, micro_steps=1)


def check_reducer_with_accumulation(comm: Communicator) -> None:
    train(comm, overlap=True, micro_steps=3)


def check_reducer_after_backward(comm: Communicator) -> None:
    train(comm, overlap=False, micro_steps=2)


def check_reducer_when_gradients_are_dropped(comm: Communicator) -> None:
    torch.manual_seed(0)
    net = Net()
    reducer = GradientReducer(comm, net.parameters(), bucket_mb=1e-4)
    for step in (0, 5, 3, 0):  # heads[0] is not used in step 3
        net.zero_grad(set_to_none=True)
        net(step_rows(step, 0, comm.rank), STEPS[step][comm.rank]).backward()
        reducer.finish()
        for mine, theirs in zip(net.parameters(), average_gradients(net, step, 1)):
            if theirs is not None:
                torch.testing.assert_close(mine.grad, theirs)
            else:
                assert mine.grad is None or not mine.grad.any()


def counting(comm: Communicator) -> tuple[SimpleNamespace, list[int]]:
    """A communicator that notes the sizes of the reductions it starts."""
    started: list[int] = []

    def all_reduce_async(tensor: Tensor, *args: str) -> Pending:
        started.append(tensor.numel())
        return comm.all_reduce_async(tensor, *args)

    wrapped = SimpleNamespace(
        size=comm.size,
        all_reduce_=comm.all_reduce_,
        broadcast_object=comm.broadcast_object,
        all_reduce_async=all_reduce_async,
    )
    return wrapped, started


def check_reduction_starts_during_backward(comm: Communicator) -> None:
    torch.manual_seed(0)
    net = Net()
    wrapped, started = counting(comm)
    reducer = GradientReducer(wrapped, net.parameters(), bucket_mb=1e-4)
    during = []
    for _ in range(3):
        started.clear()
        net(step_rows(0, 0, comm.rank), (0,)).backward()
        during.append(sum(started))
        reducer.finish()
    # All of body and heads[0], from the second step on.
    assert during == [0, 4 * 20 + 5, 4 * 20 + 5], during


def check_reduction_does_not_wait_for_a_late_gradient(comm: Communicator) -> None:
    """The first layer of the computation stands between the others in the list of parameters."""
    first, second, third = (nn.Linear(4, 4) for _ in range(3))
    parameters = [p for layer in (second, first, third) for p in layer.parameters()]
    wrapped, started = counting(comm)
    reducer = GradientReducer(wrapped, parameters, bucket_mb=1e-5)
    seen: list[int] = []
    for layer_parameter in first.parameters():
        layer_parameter.register_hook(lambda _: seen.append(sum(started)))
    for _ in range(2):
        started.clear()
        seen.clear()
        third(second(first(step_rows(0, 0, comm.rank)))).sum().backward()
        reducer.finish()
    assert seen[0] >= 2 * 20 - 16, seen  # third, and at least the bias of second


def check_second_backward_is_refused(comm: Communicator) -> None:
    net = Net()
    reducer = GradientReducer(comm, net.parameters())
    rows = step_rows(0, 0, comm.rank)
    net(rows, (0,)).backward()
    reducer.finish()
    net(rows, (0,)).backward()
    try:
        net(rows, (0,)).backward()
    except RuntimeError as error:
        assert "accumulate()" in str(error)
    else:
        raise AssertionError("a second backward pass went unnoticed")
    reducer.finish()


def check_barrier(comm: Communicator) -> None:
    comm.barrier()


def main(folder: str) -> None:
    comm, device = setup(seed=77)
    assert device.type == "cpu"
    results = {}
    for name, check in list(globals().items()):
        if name.startswith("check_"):
            try:
                check(comm)
                results[name] = ""
            except Exception:
                results[name] = traceback.format_exc()
    Path(folder, str(comm.rank)).write_text(json.dumps(results))
    comm.shutdown()


if __name__ == "__main__":
    os.environ.setdefault(
        "EXPECTED_RANK", os.environ.get("HOROVOD_RANK", os.environ.get("RANK", "0"))
    )
    main(sys.argv[1])
