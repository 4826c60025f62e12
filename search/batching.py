"""Answer the sentences of many clients together, with one model."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

MAX_WAITING = 64  # sentences; further ones are refused
GATHER_SECONDS = 0.01  # to wait for as many sentences as the last batch had

Answer = Callable[[Sequence[str], int], list]


class BusyError(Exception):
    """Too many requests are waiting."""


@dataclass(frozen=True)
class _Question:
    sentence: str
    top: int
    answer: asyncio.Future


class Batcher:
    """Runs a model on threads of its own, on all sentences that wait when a thread gets free.

    A single client never waits for others. After a batch of several sentences a thread waits for
    as many, for :data:`GATHER_SECONDS` at most, so that clients that ask again at once stay
    together. The threads share the sentences equally.

    Args:
        answer: returns the answers to sentences, in their order, of at most ``top`` entries each.

    Attributes:
        busy: number of batches that are being answered.
    """

    def __init__(self, answer: Answer, max_batch: int, threads: int = 1) -> None:
        self._answer, self._max_batch, self._threads = answer, max_batch, threads
        self._waiting: deque[_Question] = deque()
        self._arrived = asyncio.Event()
        self._pool = ThreadPoolExecutor(threads, "model")
        self._taken = 0  # sentences of the batches being answered
        self.busy = 0

    async def ask(self, sentence: str, top: int) -> Any:
        """Return the answer to a sentence.

        Raises:
            BusyError: too many are waiting.
            Exception: what ``answer`` raises for this sentence.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise BusyError
        question = _Question(sentence, top, asyncio.get_running_loop().create_future())
        self._waiting.append(question)
        self._arrived.set()
        return await question.answer

    async def call(self, function: Callable, *arguments: Any) -> Any:
        """Run a function on a thread of the model."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    async def run(self) -> None:
        """Answer sentences until cancelled."""
        await asyncio.gather(*(self._serve() for _ in range(self._threads)))

    def close(self) -> None:
        """Finish the current batches, end the threads, and cancel the sentences that wait."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        for question in self._waiting:
            question.answer.cancel()

    async def _serve(self) -> None:
        last = 1  # sentences of the last batch
        while True:
            await self._arrived.wait()
            await self._gather(last)
            if batch := self._next_batch():
                last = len(batch)
                await self._settle(batch)

    async def _gather(self, wanted: int) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + GATHER_SECONDS
        while len(self._waiting) < wanted and clock() < deadline:
            await asyncio.sleep(GATHER_SECONDS / 10)

    def _next_batch(self) -> list[_Question]:
        """Remove and return the oldest question, and further ones with the same ``top``."""
        share = min(-(-(len(self._waiting) + self._taken) // self._threads), self._max_batch)
        same = [each for each in self._waiting if each.top == self._waiting[0].top]
        batch = same[:share]
        self._waiting = deque(each for each in self._waiting if each not in batch)
        if not self._waiting:
            self._arrived.clear()
        return batch

    async def _settle(self, batch: Sequence[_Question]) -> None:
        """Answer the questions of a batch."""
        self._taken += len(batch)
        self.busy += 1
        try:
            sentences = [question.sentence for question in batch]
            answers = await self.call(self._answers, sentences, batch[0].top)
        finally:
            self._taken -= len(batch)
            self.busy -= 1
        for question, answer in zip(batch, answers, strict=True):
            if question.answer.done():  # its client has left
                continue
            if isinstance(answer, Exception):
                question.answer.set_exception(answer)
            else:
                question.answer.set_result(answer)

    def _answers(self, sentences: Sequence[str], top: int) -> list:
        """Return the answer to each sentence, or the exception that this one causes."""
        unique = list(dict.fromkeys(sentences))
        try:
            answers = dict(zip(unique, self._answer(unique, top), strict=True))
        except Exception as error:
            if len(unique) == 1:
                return [error] * len(sentences)
            answers = {sentence: self._answers([sentence], top)[0] for sentence in unique}
        return [answers[sentence] for sentence in sentences]
