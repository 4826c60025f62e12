"""The service under test: a real server on a free port, in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

from search import server
from search.engine import MomentSearch
from search.service import SearchService, make_app


class RunningServer:
    """A service that runs.

    Attributes:
        service: what answers.
        http: speaks HTTP for it.
        port: where it listens.
        url: of the page.
    """

    def __init__(self, service: SearchService, http: server.Server, port: int) -> None:
        self.service, self.http, self.port = service, http, port
        self.url = f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def serving(engine: MomentSearch, *allowed_hosts: str) -> Iterator[RunningServer]:
    """Serve an engine within the block."""
    listener = server.listen(0)
    port = listener.getsockname()[1]
    begun = threading.Event()
    service = SearchService(engine)
    app = make_app(service, allowed_hosts)
    http = server.Server(server.server_config(app), begun.set)
    thread = threading.Thread(target=lambda: asyncio.run(http.serve([listener])))
    thread.start()
    try:
        assert begun.wait(30)
        yield RunningServer(service, http, port)
    finally:
        http.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
