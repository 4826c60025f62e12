"""Serve HTTP on the loopback interface until a signal comes."""

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
MAX_CLIENTS = 128  # connections, including idle ones
REQUEST_SECONDS = 10.0  # from the start of a connection to the end of its first headers
KEEP_ALIVE_SECONDS = 15
SHUTDOWN_SECONDS = 2  # to finish answers


class Server(uvicorn.Server):
    """Ends at the signals of :mod:`utils.signals`."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to :mod:`utils.signals`."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and call ``ready``."""
        await super().startup(sockets)
        self._ready()

    async def on_tick(self, counter: int) -> bool:
        """Return whether to end."""
        return received_signal() is not None or await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End, and abort connections that do not read their answer, such as a paused film."""

        def abort() -> None:
            for connection in list(self.server_state.connections):
                connection.transport.abort()

        asyncio.get_running_loop().call_later(SHUTDOWN_SECONDS, abort)
        await super().shutdown(sockets)


class _Protocol(H11Protocol):
    """Closes connections of clients that take too long to send a request."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(  # type: ignore[override]  # as in the base class, which deviates itself
        self, transport: asyncio.Transport
    ) -> None:
        """Start to wait for a request."""
        super().connection_made(transport)
        self._wait()

    def on_response_complete(self) -> None:
        """Start to wait for the next request."""
        super().on_response_complete()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        super().connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        limit = REQUEST_SECONDS + (KEEP_ALIVE_SECONDS if self.cycle is not None else 0)
        self._timer = self.loop.call_later(limit, self._close_idle, self.cycle)

    def _close_idle(self, last_cycle: object) -> None:
        if self.cycle is last_cycle:
            self.transport.close()


def listen(port: int) -> socket.socket:
    """Return a socket that is bound to the loopback interface; port 0: any that is free.

    Raises:
        UserError: the port cannot be used.
    """
    # asyncio sends without delay (TCP_NODELAY) only where the protocol is named.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((ADDRESS, port))
        listener.listen()  # fails now if another service has the port
    except OSError as error:
        listener.close()
        reasons = {
            errno.EADDRINUSE: "another program listens there",
            errno.EACCES: "only root may listen there",
        }
        reason = reasons.get(error.errno or 0, error.strerror)
        raise UserError(f"--port {port} cannot be used ({reason}); choose another") from None
    return listener


def serve(app: FastAPI, listener: socket.socket, ready: Callable[[], None]) -> None:
    """Serve until a signal comes, then finish answers for :data:`SHUTDOWN_SECONDS`.

    The listener is closed at the end; ``ready`` is called when the service can answer.

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
        raise UserError("the service could not start; see above")


def server_config(app: FastAPI) -> uvicorn.Config:
    """Return the settings of uvicorn."""
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
        timeout_graceful_shutdown=2 * SHUTDOWN_SECONDS,
        proxy_headers=False,
    )
