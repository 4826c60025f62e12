"""Moments as peaks of the curve of a film's scores for a sentence.

The curve is smoothed: half of a frame's own score and a quarter of each neighbour's. A frame that
no neighbour exceeds is a peak. Its moment extends as far as the curve stays at or above the mean of
the peak and the lower quartile of the film, which represents frames that do not fit. Peaks are
taken from the highest down, and moments do not share frames.
"""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor


def smooth(curve: Tensor, mask: Tensor) -> Tensor:
    """Return smoothed curves (…, T); the mask (…, T) is False for padding after the last frame.

    The weights of missing neighbours are left out.
    """
    real = mask.to(curve.dtype)
    values = curve.masked_fill(~mask, 0)

    def weighted(frames: Tensor) -> Tensor:
        around = F.pad(frames, (1, 1))
        return 2 * frames + around[..., :-2] + around[..., 2:]

    return weighted(values) / weighted(real).clamp_min(1)


def find_peaks(curve: np.ndarray, longest: int, count: int) -> list[tuple[int, int, float]]:
    """Return the moments (first frame, last frame, height of the peak) of a smoothed curve (T,).

    Args:
        curve: of scores.
        longest: most frames of a moment; a longer one is cut around its peak.
        count: most moments, the highest.
    """
    lower = np.concatenate([[-np.inf], curve, [-np.inf]])
    is_peak = (curve >= lower[:-2]) & (curve >= lower[2:])
    base = float(np.quantile(curve, 0.25))
    free = np.ones(len(curve), dtype=bool)
    moments: list[tuple[int, int, float]] = []
    for peak in np.flatnonzero(is_peak)[np.argsort(-curve[is_peak], kind="stable")].tolist():
        if len(moments) == count or curve[peak] < base:
            break
        if not free[peak]:
            continue
        level = (float(curve[peak]) + base) / 2
        fits = free & (curve >= level)
        fits[peak] = True  # also where rounding lifts the level above a flat curve
        first, last = _run_around(fits, peak)
        if last - first >= longest:
            first = min(max(first, peak - longest // 2), last - longest + 1)
            last = first + longest - 1
        free[first : last + 1] = False
        moments.append((first, last, float(curve[peak])))
    return moments


def _run_around(fits: np.ndarray, frame: int) -> tuple[int, int]:
    """Return the first and the last frame of the run of True around ``frame``."""
    outside = np.flatnonzero(~np.pad(fits, 1)) - 1  # frames, and one before and after all
    after = int(np.searchsorted(outside, frame))
    return int(outside[after - 1]) + 1, int(outside[after]) - 1
