# ruff: noqa: F401 (names for other folders)
"""Single process, Horovod and torch.distributed behind one small interface."""

from utils.distributed.communicator import CollectiveError, Communicator, Pending, SingleProcess
from utils.distributed.exchange import broadcast_parameters, broadcast_state, gather_with_grad
from utils.distributed.gradient_reducer import GradientReducer
from utils.distributed.setup import init_communicator, seed_all, setup
