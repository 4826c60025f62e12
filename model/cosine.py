"""Unit vectors, whose dot products are cosines."""

import torch
from torch import Tensor

NORM_EPS = 1e-5  # of the published models: least length that a vector is divided by


def unit_vectors(x: Tensor) -> tuple[Tensor, Tensor]:
    """Divide vectors (…, H) by their lengths (…, 1); return quotients and lengths, in fp32."""
    x = x.float()
    norms = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp(min=NORM_EPS)
    return x / norms, norms
