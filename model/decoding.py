"""Writing sequences token by token: greedily, or with a beam.

The searches are independent of the model: a :class:`Stepper` takes the last token of every row and
returns the logits of the next. All rows advance together on the device; the host waits for it once
per step, to check whether all have ended.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from config.groups import DecodingOptions


@dataclass(frozen=True)
class DecodingSettings:
    """Settings of the search.

    Attributes:
        begin, end: ids of ``<s>`` and ``</s>``; neither is part of the result.
        known_ids: ids that may be written (the tokenizer's own, including ``end``).
        max_steps: most tokens written.
        beam: hypotheses per sequence; 1 = greedy.
        length_penalty: a hypothesis of log-probability p and n tokens (including ``end``) has the
            score p / n^length_penalty; 0 = p itself, which favours short ones.
    """

    begin: int
    end: int
    known_ids: tuple[int, ...]
    max_steps: int
    beam: int = 1
    length_penalty: float = 1.0

    @classmethod
    def from_options(
        cls, options: DecodingOptions, begin: int, end: int, known_ids: Sequence[int]
    ) -> Self:
        """Return the settings of options, with the tokenizer's ids."""
        steps, beam, penalty = options.max_gen_step, options.beam, options.length_penalty
        return cls(begin, end, tuple(known_ids), steps, beam, penalty)

    def forbidden(self, vocab_size: int, device: torch.device) -> Tensor:
        """Return (V,) bool, True where an id must not be written."""
        forbidden = torch.ones(vocab_size, dtype=torch.bool)
        forbidden[[i for i in self.known_ids if i < vocab_size]] = False
        return forbidden.to(device)


class Stepper(Protocol):
    """A model that writes R rows, and stores their state."""

    def __call__(self, tokens: Tensor) -> Tensor:
        """Return logits (R, V) after the last tokens (R,)."""

    def reorder(self, rows: Tensor) -> None:
        """Let row r continue row ``rows[r]``; (R,) long."""


def search(
    stepper: Stepper, count: int, device: torch.device, settings: DecodingSettings
) -> Tensor:
    """Write ``count`` = C sequences.

    Args:
        stepper: with C × ``settings.beam`` rows on ``device``, ordered by sequence.

    Returns:
        (C, ≤ max_steps) ids; those after the first ``end`` are undefined.
    """
    if settings.beam > 1:
        return beam_search(stepper, count, device, settings)
    return greedy_search(stepper, count, device, settings)


def greedy_search(
    stepper: Stepper, count: int, device: torch.device, settings: DecodingSettings
) -> Tensor:
    """Write the most likely token at every step; see :func:`search`."""
    tokens = torch.full((count,), settings.begin, device=device)
    ended = torch.zeros(count, dtype=torch.bool, device=device)
    written, forbidden = [], None
    for _ in range(settings.max_steps):
        logits = stepper(tokens)
        if forbidden is None:
            forbidden = settings.forbidden(logits.shape[-1], device)
        tokens = logits.masked_fill(forbidden, float("-inf")).argmax(dim=-1)
        written.append(tokens)
        ended |= tokens == settings.end
        if ended.all():
            break
    return torch.stack(written, dim=1)


def beam_search(
    stepper: Stepper, count: int, device: torch.device, settings: DecodingSettings
) -> Tensor:
    """Write the best hypothesis of a beam search; see :func:`search`.

    A hypothesis that has ended stays in the beam with its score until better ones replace it; the
    best of them is stored even then. The search ends when no growing hypothesis can become better
    than that one.
    """
    beam = _Beam(count, device, settings)
    for step in range(1, settings.max_steps + 1):
        beam.advance(stepper, step)
        beam.store_ended()
        if beam.is_decided():
            break
    return beam.best()


class _Beam:
    """C × K hypotheses; K = ``settings.beam``."""

    def __init__(self, count: int, device: torch.device, settings: DecodingSettings) -> None:
        shape = (count, settings.beam)
        self.settings = settings
        self.first_row = torch.arange(count, device=device)[:, None] * settings.beam
        self.sums = torch.full(shape, float("-inf"), device=device)
        self.sums[:, 0] = 0.0  # all K are equal at first: only one may branch
        self.lengths = torch.zeros(shape, device=device)
        self.ended = torch.zeros(shape, dtype=torch.bool, device=device)
        self.tokens = torch.full((*shape, 1), settings.begin, device=device)
        self.forbidden: Tensor | None = None
        # Of each sequence, the best hypothesis that has ever ended.
        self.ended_scores = torch.full((count,), float("-inf"), device=device)  # −inf: none
        self.ended_tokens = self.tokens[:, 0]

    def advance(self, stepper: Stepper, step: int) -> None:
        """Grow by one token and keep the K best of each sequence."""
        count, size = self.sums.shape
        candidates, tokens = self._candidates(stepper(self.tokens[:, :, -1].flatten()))
        sums = self.sums[:, :, None] + candidates
        lengths = torch.where(self.ended, self.lengths, step)
        scores = (sums / self._penalty(lengths)[:, :, None]).flatten(1)
        chosen = scores.topk(size, dim=-1).indices  # (C, K)
        parents = chosen // candidates.shape[-1]
        self.sums = sums.flatten(1).gather(1, chosen)
        self.lengths = lengths.gather(1, parents)
        tokens = tokens.flatten(1).gather(1, chosen)
        history = self.tokens.gather(1, parents[:, :, None].expand_as(self.tokens))
        self.tokens = torch.cat([history, tokens[:, :, None]], dim=-1)
        self.ended = self.ended.gather(1, parents) | (tokens == self.settings.end)
        stepper.reorder((self.first_row + parents).view(count * size))

    def _candidates(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probabilities and ids (C, K, k) of the most likely next tokens.

        A hypothesis that has ended continues with ``end`` only, at log-probability 0.
        """
        if self.forbidden is None:
            self.forbidden = self.settings.forbidden(logits.shape[-1], logits.device)
        logits = logits.float().masked_fill(self.forbidden, float("-inf"))
        best, tokens = logits.topk(min(self.settings.beam, logits.shape[-1]), dim=-1)
        log_probs = (best - logits.logsumexp(dim=-1, keepdim=True)).view(*self.sums.shape, -1)
        stay = torch.full_like(log_probs[0, 0], float("-inf"))
        stay[0] = 0.0
        ended = self.ended[:, :, None]
        tokens = tokens.view_as(log_probs).masked_fill(ended, self.settings.end)
        return torch.where(ended, stay, log_probs), tokens

    def _penalty(self, lengths: Tensor) -> Tensor:
        return lengths.clamp(min=1) ** self.settings.length_penalty

    def store_ended(self) -> None:
        """Store the best hypothesis that has ended, in case it is replaced later."""
        scores, tokens = self._best_of(self.sums.masked_fill(~self.ended, float("-inf")))
        better = scores > self.ended_scores
        kept = F.pad(self.ended_tokens, (0, 1), value=self.settings.end)
        self.ended_scores = torch.where(better, scores, self.ended_scores)
        self.ended_tokens = torch.where(better[:, None], tokens, kept)

    def is_decided(self) -> bool:
        """Return whether no growing hypothesis can still win, in any sequence.

        Its best possible score: no further loss of probability, and the largest length.
        """
        growing = self.sums.masked_fill(self.ended, float("-inf")).amax(dim=1)
        longest = self.settings.max_steps**self.settings.length_penalty
        return bool((self.ended_scores >= growing / longest).all())

    def best(self) -> Tensor:
        """Return ids (C, steps) of the hypothesis with the best score, ended or growing."""
        scores, tokens = self._best_of(self.sums)
        growing = (scores > self.ended_scores)[:, None]
        return torch.where(growing, tokens, self.ended_tokens)[:, 1:]

    def _best_of(self, sums: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores (C,) and tokens (C, 1 + steps) of the best hypotheses by sums (C, K)."""
        scores, best = (sums / self._penalty(self.lengths)).max(dim=1)
        return scores, self.tokens[torch.arange(len(best), device=best.device), best]


def until_end(ids: Tensor, end: int) -> list[list[int]]:
    """Return each row (C, S) up to its first ``end``, without it."""
    return [row[: row.index(end)] if end in row else row for row in ids.tolist()]
