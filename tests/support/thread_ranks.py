"""Several ranks as threads of one process, which gather what each has."""

import threading
from collections.abc import Callable
from typing import Any

from utils.distributed import Communicator


class ThreadRank(Communicator):
    """A rank in a thread of this process."""

    backend = "threads"

    def __init__(self, rank, board, barrier):
        super().__init__(rank, len(board), rank)
        self.board, self.meet = board, barrier.wait

    def _gather_bytes(self, flat):
        self.board[self.rank] = flat
        self.meet()
        parts = list(self.board)
        self.meet()
        return parts

    def _start_all_reduce(self, tensor, op, name):
        raise NotImplementedError

    def _broadcast(self, tensor, root):
        raise NotImplementedError

    def shutdown(self):
        raise NotImplementedError


def on_ranks(size: int, work: Callable[[Communicator], Any]) -> list:
    """Return what ``work(comm)`` of every rank returns."""
    board, barrier, results = [None] * size, threading.Barrier(size, timeout=30), [None] * size

    def run(rank):
        results[rank] = work(ThreadRank(rank, board, barrier))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
