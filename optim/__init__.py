"""Optimizer, learning-rate schedule and gradient clipping."""

from optim.adamw import AdamW
from optim.build import build_optimizer, parameter_groups
from optim.gradients import clip_gradients, drop_gradients, fill_gradients
from optim.schedule import learning_rate_at, set_learning_rates
from optim.state import load_optimizer_state, optimizer_state

__all__ = [
    "AdamW",
    "build_optimizer",
    "clip_gradients",
    "drop_gradients",
    "fill_gradients",
    "learning_rate_at",
    "load_optimizer_state",
    "optimizer_state",
    "parameter_groups",
    "set_learning_rates",
]
