"""Run scripts as steps, each in a process of its own that ends when this one does."""

import importlib
import multiprocessing
from multiprocessing.connection import Connection

from utils.errors import UserError, as_user_error
from utils.processes import follow_parent
from utils.signals import stoppable


def run_script(name: str, *arguments: object) -> None:
    """Run ``scripts/<name>.py`` with the arguments given.

    Raises:
        UserError: raised by the script, or it was killed.
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
        if not 0 < process.exitcode <= 128:
            raise UserError(f"{problem}: it was killed (out of memory?); run again")
        raise RuntimeError(problem)


@stoppable
def _run(sender: Connection, name: str, arguments: list[str]) -> None:
    follow_parent()
    try:
        importlib.import_module(f"scripts.{name}").main(arguments)
    except Exception as error:
        known = as_user_error(error)
        if known is None:
            raise
        sender.send(str(known))
    sender.close()
