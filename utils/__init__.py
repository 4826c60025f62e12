"""The floor that everything stands on."""

from utils import runtime as runtime  # before anything that loads PyTorch
