"""Moments as peaks of a curve that says how well each frame of a film fits a sentence.

The curve is smoothed: every frame takes half of its own value and a quarter of each neighbour's. A
frame that no neighbour exceeds is a peak; around it lies a moment, as far as the curve stays at or
above the middle between the peak and the film's lower quartile, which stands for frames that do not
fit. The highest peak comes first; frames of its moment belong to no other.
"""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor


def smooth(curve: Tensor, mask: Tensor) -> Tensor:
    """Smooth curves (…, T); at an end, the weights of the frames that are there count.

    Args:
        curve: values of frames.
        mask: (…, T), True = a frame, False = padding behind the last one, whose values are free.
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
        curve: a value for each frame.
        longest: frames of a moment; of a longer one, those around its peak are kept.
        count: moments at most, the highest.
    """
    lower = np.concatenate([[-np.inf], curve, [-np.inf]])
    is_peak = (curve >= lower[:-2]) & (curve >= lower[2:])
    base = float(np.quantile(curve, 0.25))
    free = np.ones(len(curve), dtype=bool)
    found: list[tuple[int, int, float]] = []
    for peak in np.flatnonzero(is_peak)[np.argsort(-curve[is_peak], kind="stable")].tolist():
        if len(found) == count or curve[peak] < base:
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
        found.append((first, last, float(curve[peak])))
    return found


def _run_around(fits: np.ndarray, place: int) -> tuple[int, int]:
    """First and last place of the run of True that ``place`` is in."""
    before, after = np.flatnonzero(~fits[:place]), np.flatnonzero(~fits[place:])
    first = int(before[-1]) + 1 if len(before) else 0
    last = place + int(after[0]) - 1 if len(after) else len(fits) - 1
    return first, last
