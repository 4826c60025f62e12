"""Listening for HTTP on the loopback interface, and ending in order."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Iterator

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from utils.errors import UserError
from utils.signals import Stopped, postponed_signals, received_signal

ADDRESS = "127.0.0.1"
MAX_CLIENTS = 128  # connections, those that are kept open among them
REQUEST_SECONDS = 10.0  # from a connection's begin to the end of its first request's headers
KEEP_ALIVE_SECONDS = 15
END_SECONDS = 2  # for answers that are under way when the service ends


class Server(uvicorn.Server):
    """Ends at the signals that all commands end at."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to :mod:`utils.signals`."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin, and say so."""
        await super().startup(sockets)
        self._ready()

    async def on_tick(self, counter: int) -> bool:
        """Return whether it is time to end."""
        return received_signal() is not None or await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End; whoever has not taken the answer by then, such as a paused film, is cut off."""
        asyncio.get_running_loop().call_later(END_SECONDS, self._cut_off)
        await super().shutdown(sockets)

    def _cut_off(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()


class _Protocol(H11Protocol):
    """Parts with clients that take too long to say what they want."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(  # type: ignore[override]  # as in the base class, which deviates itself
        self, transport: asyncio.Transport
    ) -> None:
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._wait()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        super().on_response_complete()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        super().connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        limit = REQUEST_SECONDS + (KEEP_ALIVE_SECONDS if self.cycle is not None else 0)
        self._timer = self.loop.call_later(limit, self._end, self.cycle)

    def _end(self, before: object) -> None:
        if self.cycle is before:
            self.transport.close()


def listen(port: int) -> socket.socket:
    """Return a socket that is bound to the loopback interface.

    Args:
        port: 0: any that is free.

    Raises:
        UserError: the port cannot be had.
    """
    # asyncio sends without delay (TCP_NODELAY) only where the protocol is named.
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((ADDRESS, port))
        found.listen()  # so that another service on the port shows now
    except OSError as error:
        found.close()
        reasons = {
            errno.EADDRINUSE: "another program listens there",
            errno.EACCES: "only root may listen there",
        }
        said = reasons.get(error.errno or 0) or error.strerror
        raise UserError(f"--port {port} cannot be had ({said}); choose another") from None
    return found


def serve(app: FastAPI, listener: socket.socket, ready: Callable[[], None]) -> None:
    """Serve until a signal comes; answers under way are finished, for :data:`END_SECONDS`.

    Args:
        app: what answers.
        listener: of :func:`listen`; it is closed at last.
        ready: called once requests are answered.

    Raises:
        Stopped: by the signal.
    """
    server = Server(server_config(app), ready)
    with postponed_signals():
        try:
            server.run([listener])
        finally:
            listener.close()
        if (number := received_signal()) is not None:
            raise Stopped(number)
    if not server.started:
        raise UserError("the service could not begin; see above")


def server_config(app: FastAPI) -> uvicorn.Config:
    """Return how HTTP is spoken."""
    return uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=MAX_CLIENTS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=2 * END_SECONDS,
        proxy_headers=False,
    )
