"""Sentences of many clients, answered together by one model on one thread."""

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
    """Runs a model on its own thread; what waits when the thread gets free is answered at once.

    A single client never waits for others. Clients that each ask again as soon as they have their
    answer would otherwise split into those that came first and the rest: where several sentences
    were answered together, the next ones are waited for, :data:`GATHER_SECONDS` at most.

    Args:
        answer: gives the answers to sentences, in their order, ``top`` entries of each at most.
        most: sentences of a batch.
    """

    def __init__(self, answer: Answer, most: int) -> None:
        self._answer, self._most = answer, most
        self._waiting: deque[_Question] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "model")

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
        """Return what a function returns that needs the model's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def run(self) -> None:
        """Answer, until cancelled."""
        before = 1
        while True:
            await self._arrived.wait()
            await self._gather(before)
            batch = self._next()
            before = len(batch)
            sentences = [question.sentence for question in batch]
            answers = await self.call(self._answers, sentences, batch[0].top)
            for question, answer in zip(batch, answers, strict=True):
                if question.answer.done():  # its client is gone
                    continue
                if isinstance(answer, Exception):
                    question.answer.set_exception(answer)
                else:
                    question.answer.set_result(answer)

    def close(self) -> None:
        """End the thread, after what it is at; whoever waits is told that it is over."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        for question in self._waiting:
            question.answer.cancel()

    async def _gather(self, wanted: int) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + GATHER_SECONDS
        while len(self._waiting) < wanted and clock() < deadline:
            await asyncio.sleep(GATHER_SECONDS / 10)

    def _next(self) -> list[_Question]:
        """What is answered next: the oldest sentence, and others that want as many moments."""
        top = self._waiting[0].top
        batch, others = [], deque()
        for question in self._waiting:
            fits = question.top == top and len(batch) < self._most
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
