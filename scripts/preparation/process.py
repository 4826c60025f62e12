"""Scripts as steps: each runs in a process of its own, which ends when this one does."""

import importlib
import multiprocessing
import os
import sys
import threading
from multiprocessing.connection import Connection, wait

from utils.errors import UserError, as_user_error


def run_script(name: str, *arguments: object) -> None:
    """Run ``scripts/<name>.py`` with the arguments given.

    Raises:
        UserError: what the script says is wrong, or that it was killed.
        RuntimeError: it failed otherwise, after a traceback.
    """
    context = multiprocessing.get_context("spawn")  # a fork of several threads might hang
    receiver, sender = context.Pipe(duplex=False)
    words = [str(word) for word in arguments]
    process = context.Process(target=_run, args=(sender, name, words))
    process.start()
    sender.close()
    try:
        mistake = receiver.recv()
    except EOFError:
        mistake = None
    process.join()
    if mistake is not None:
        raise UserError(mistake)
    if process.exitcode:
        problem = f"scripts/{name}.py ended with exit code {process.exitcode}"
        if process.exitcode < 0:
            raise UserError(f"{problem}: it was killed (out of memory?); run again")
        raise RuntimeError(problem)


def _run(sender: Connection, name: str, arguments: list[str]) -> None:
    # Were the parent killed, this would go on unseen, and hold the lock of what it builds.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        importlib.import_module(f"scripts.{name}").main(arguments)
    except Exception as error:
        known = as_user_error(error)
        if known is None:
            raise
        sender.send(str(known))
    except KeyboardInterrupt:
        sys.exit(130)
    sender.close()


def _end_with_parent() -> None:
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
