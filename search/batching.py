"""Sentences of many clients, answered together by one model."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

MAX_WAITING = 64  # sentences; one more is turned away
GATHER_SECONDS = 0.01  # for the others, where several came together before

Answer = Callable[[Sequence[str], int], list]


class BusyError(Exception):
    """More is asked for than can be answered soon."""


@dataclass(frozen=True)
class _Question:
    sentence: str
    top: int
    answer: asyncio.Future


class Batcher:
    """Runs a model on threads of its own; what waits when a thread gets free is answered at once.

    A single client never waits for others. Clients that each ask again as soon as they have their
    answer would otherwise split into those that came first and the rest: where a thread answered
    several sentences together, it waits for as many, :data:`GATHER_SECONDS` at most. Of all that
    wait or are being answered it takes no more than its share.

    Args:
        answer: gives the answers to sentences, in their order, ``top`` entries of each at most.
        most: sentences of a batch.
        threads: batches that are answered at the same time.

    Attributes:
        busy: batches under way.
    """

    def __init__(self, answer: Answer, most: int, threads: int = 1) -> None:
        self._answer, self._most, self._threads = answer, most, threads
        self._waiting: deque[_Question] = deque()
        self._arrived = asyncio.Event()
        self._pool = ThreadPoolExecutor(threads, "model")
        self._taken = 0  # sentences of the batches under way
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
        """Return what a function returns that needs one of the model's threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    async def run(self) -> None:
        """Answer, until cancelled."""
        await asyncio.gather(*(self._serve() for _ in range(self._threads)))

    async def _serve(self) -> None:
        before = 1
        while True:
            await self._arrived.wait()
            await self._gather(before)
            if batch := self._next():
                before = len(batch)
                await self._settle(batch)

    async def _settle(self, batch: Sequence[_Question]) -> None:
        """Answer the questions of a batch."""
        sentences = [question.sentence for question in batch]
        self._taken += len(batch)
        self.busy += 1
        try:
            answers = await self.call(self._answers, sentences, batch[0].top)
        finally:
            self._taken -= len(batch)
            self.busy -= 1
        for question, answer in zip(batch, answers, strict=True):
            if question.answer.done():  # its client is gone
                continue
            if isinstance(answer, Exception):
                question.answer.set_exception(answer)
            else:
                question.answer.set_result(answer)

    def close(self) -> None:
        """End the threads, after what they are at; whoever waits is told that it is over."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        for question in self._waiting:
            question.answer.cancel()

    async def _gather(self, wanted: int) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + GATHER_SECONDS
        while len(self._waiting) < wanted and clock() < deadline:
            await asyncio.sleep(GATHER_SECONDS / 10)

    def _next(self) -> list[_Question]:
        """Return what is answered next: the oldest sentence, and others that want as many
        moments."""
        share = min(-(-(len(self._waiting) + self._taken) // self._threads), self._most)
        batch: list[_Question] = []
        others: deque[_Question] = deque()
        for question in self._waiting:
            fits = question.top == self._waiting[0].top and len(batch) < share
            (batch if fits else others).append(question)
        self._waiting = others
        if not others:
            self._arrived.clear()
        return batch

    def _answers(self, sentences: Sequence[str], top: int) -> list:
        """An answer to each sentence, or the exception that it causes, which is not the others'."""
        unique = list(dict.fromkeys(sentences))
        try:
            found = dict(zip(unique, self._answer(unique, top), strict=True))
        except Exception as error:
            if len(unique) == 1:
                return [error] * len(sentences)
            found = {sentence: self._answers([sentence], top)[0] for sentence in unique}
        return [found[sentence] for sentence in sentences]
