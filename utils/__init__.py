"""What all other folders use."""

from utils import runtime as runtime  # before anything that loads PyTorch
