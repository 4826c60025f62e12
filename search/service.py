"""The search engine over HTTP: moments, films, thumbnails, and the page that shows them.

A request names a film by its id in the index, never a path, and only films of the index are served.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import stat
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, BeforeValidator, Field
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from search.answers import Moment
from search.batching import Batcher, BusyError
from search.engine import SENTENCES_AT_ONCE, MomentSearch
from search.pictures import thumbnail
from search.playback import Playback, media_type, playback
from search.records import Film
from search.store import Index
from utils.errors import UserError
from utils.logger import LOGGER
from utils.runtime import release_memory

MAX_QUERY_CHARACTERS = 500
MAX_TOP = 100
MAX_QUERY_STRING = 8192  # bytes, percent-encoded
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
MODEL_THREADS = 2  # batches at once: two on one core each are faster than one on two cores
FILE_THREADS = 2  # that decode thumbnails and read spoken lines
MAX_FILE_WAITING = 256
POLL_SECONDS = 1.0  # between two looks at the index
RELEASE_SECONDS = 30.0  # after which freed memory is returned to the system again
RENEWAL_SHARE = 0.1  # of the time, at most, for loading new states of the index
PAGE = Path(__file__).parent / "page"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def _text(value: object) -> str:
    """Return a text that JSON can hold: names of files may not be UTF-8."""
    return str(value).encode("utf-8", "replace").decode()


Text = Annotated[str, BeforeValidator(_text)]


class MomentEntry(BaseModel):
    """Where a film shows or says what the sentence describes; times in seconds."""

    video: str = Field(description="the film's id, as the paths below take it (percent-encode it)")
    file: Text
    name: Text = Field(description="the film's path below the folder that was indexed")
    start: float
    end: float
    score: float = Field(description="higher is better; comparable between sentences")
    text: Text = Field(description="what is spoken there")
    doubtful: bool = Field(
        False, description="whether it scores no better than unrelated sentences"
    )
    note: str = Field("", description="a warning, such as untrained weights")


class SearchAnswer(BaseModel):
    """Moments, best first."""

    moments: list[MomentEntry]


class VideoEntry(BaseModel):
    """A film of the index."""

    video: str
    file: Text
    name: Text
    seconds: float


class VideoList(BaseModel):
    """The films of the index."""

    videos: list[VideoEntry]


class LineEntry(BaseModel):
    """What is spoken, and when, in seconds."""

    start: float
    end: float
    text: Text


class VideoDetails(VideoEntry):
    """A film, how browsers play it, and what is spoken in it."""

    codec: str = Field(description="how its pictures are encoded; empty if it cannot be read")
    plays: bool = Field(description="whether any browser plays it")
    problem: str = Field(description="what does not work, and how to fix it")
    lines: list[LineEntry]


class CurveAnswer(BaseModel):
    """How well each frame of a film fits a sentence; frame f starts at f · interval seconds."""

    interval: float
    scores: list[float]


class Health(BaseModel):
    """What is served."""

    status: str = Field(description="ok, or stale: the newest index cannot be loaded")
    videos: int
    frames: int
    model: str
    generation: int = Field(description="number of the index's state")
    note: str = Field(description="a warning that belongs to every answer")
    problem: Text = Field(description="why the newest index cannot be loaded")


class SearchService:
    """One engine for many clients, replaced when the index changes.

    The model runs on :data:`MODEL_THREADS` threads, in batches, which share the processors. Films
    are read on other threads. Another one polls the index, and opens its new state while the old
    one answers.

    Attributes:
        engine: of the state that answers.
        problem: why the newest state cannot be loaded; empty if it is.
        batcher: runs the model.
    """

    def __init__(self, engine: MomentSearch, device: str = "cpu") -> None:
        self.engine = engine
        self.problem = ""
        self._processors = torch.get_num_threads()
        threads = min(MODEL_THREADS, self._processors) if device == "cpu" else 1
        self.batcher = Batcher(self._answer, SENTENCES_AT_ONCE, threads)
        self._files = ThreadPoolExecutor(FILE_THREADS, "films")
        self._poller = ThreadPoolExecutor(1, "index")
        self._reading = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer within the block."""
        loops = self.batcher.run(), self._poll(), self._release()
        tasks = [asyncio.create_task(loop) for loop in loops]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.batcher.close()
            for threads in (self._files, self._poller):
                threads.shutdown(wait=True, cancel_futures=True)

    async def read(self, function: Callable, *arguments: Any) -> Any:
        """Return what a function that reads films returns; at most :data:`FILE_THREADS` at once.

        Raises:
            BusyError: too many are waiting.
        """
        if self._reading >= MAX_FILE_WAITING:
            raise BusyError
        self._reading += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._files, function, *arguments)
        finally:
            self._reading -= 1

    def _answer(self, sentences: Sequence[str], top: int) -> list[list[Moment]]:
        engine = self.engine
        processors = max(1, self._processors // self.batcher.busy)
        if torch.get_num_threads() != processors:
            torch.set_num_threads(processors)  # of this thread
        return engine.search(sentences, top) if engine.films else [[] for _ in sentences]

    async def _poll(self) -> None:
        while True:
            start = time.monotonic()
            try:
                await self._renew()
                self.problem = ""
            except Exception as error:  # the state that there is continues to answer
                self._note(error)
            seconds = time.monotonic() - start
            await asyncio.sleep(max(POLL_SECONDS, seconds / RENEWAL_SHARE))

    async def _renew(self) -> None:
        """Load the newest state of the index, then let it answer."""
        loop = asyncio.get_running_loop()
        newest = await loop.run_in_executor(self._poller, self.engine.newest)
        if newest is not self.engine:
            await self.batcher.call(newest.warm_up)
            self.engine = newest
            LOGGER.info("the index has %d films now", len(newest.films))

    def _note(self, error: Exception) -> None:
        """Log why the newest state cannot be loaded, once."""
        reason = " ".join(str(error).split())
        if reason != self.problem:
            expected = isinstance(error, (UserError, OSError))
            LOGGER.warning("the index of before stays: %s", reason, exc_info=not expected)
        self.problem = reason or type(error).__name__

    async def _release(self) -> None:
        """Return memory that decoders and batches have freed to the system."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(RELEASE_SECONDS)
            await loop.run_in_executor(self._poller, release_memory)


def make_app(service: SearchService, allowed_hosts: Sequence[str] = ()) -> FastAPI:
    """Return the application; requests to ``allowed_hosts``, besides loopback, are answered."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPI(
        title="Moment search",
        description="Moments of films that sentences describe.",
        version="1.0.0",
        lifespan=lifespan,
        openapi_url="/openapi.json",
        docs_url=None,  # FastAPI's own pages load their scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    _add_searches(app, service)
    _add_films(app, service)
    _add_pages(app)
    _add_errors(app)
    hosts = [*LOOPBACK_NAMES, *allowed_hosts]
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
    app.add_middleware(_Guard)
    return app


Sentence = Annotated[
    str,
    Query(
        min_length=1,
        max_length=MAX_QUERY_CHARACTERS,
        pattern=r"\S",
        description="what the moment shows or says",
    ),
]
Top = Annotated[int, Query(ge=1, le=MAX_TOP, description="moments at most")]
Seconds = Annotated[float, Query(ge=0, allow_inf_nan=False, description="from the film's start")]


def _add_searches(app: FastAPI, service: SearchService) -> None:
    @app.get("/api/search", response_model=SearchAnswer, response_model_exclude_defaults=True)
    async def search(q: Sentence, top: Top = 5) -> SearchAnswer:
        """Find the moments that a sentence describes."""
        moments = [
            MomentEntry(video=str(moment.video), name=moment.name, **moment.record())
            for moment in await service.batcher.ask(q, top)
        ]
        return SearchAnswer(moments=moments)

    @app.get("/api/videos/{video}/curve")
    async def curve(video: str, q: Sentence) -> CurveAnswer:
        """Score every frame of a film by a sentence."""
        film, engine = _film(service, video), service.engine
        scores = await service.batcher.call(engine.score, film.id, q)
        return CurveAnswer(interval=engine.index.maker.interval, scores=scores.tolist())

    @app.get("/api/health")
    async def health() -> Health:
        """Report what is served."""
        engine = service.engine
        return Health(
            status="stale" if service.problem else "ok",
            videos=len(engine.films),
            frames=len(engine.index.frames),
            model=engine.index.maker.kind,
            generation=engine.index.generation,
            note=engine.note,
            problem=service.problem,
        )


def _add_films(app: FastAPI, service: SearchService) -> None:
    @app.get("/api/videos")
    async def videos() -> VideoList:
        """List the films."""
        return VideoList(videos=[VideoEntry(**_facts(film)) for film in service.engine.films])

    @app.get("/api/videos/{video}")
    async def details(video: str) -> VideoDetails:
        """Describe a film: how it plays, what is spoken."""
        film = _film(service, video)
        return await service.read(_details, film, service.engine.index)

    @app.head("/api/videos/{video}/stream", include_in_schema=False)
    @app.get(
        "/api/videos/{video}/stream",
        response_class=FileResponse,
        responses={206: {"description": "the bytes of the Range header"}},
    )
    async def stream(video: str) -> Response:
        """Send a film, or a range of its bytes."""
        path, known = await service.read(_readable, _film(service, video))
        return _FilmResponse(path, stat_result=known, media_type=media_type(path))

    @app.get(
        "/api/videos/{video}/thumbnail",
        response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}}},
    )
    async def picture(video: str, t: Seconds = 0) -> Response:
        """Send the frame on display at a time, or the last one."""
        film = _film(service, video)
        path, _ = await service.read(_readable, film)
        try:
            jpeg = await service.read(thumbnail, path, min(t, film.seconds))
        except UserError as problem:
            raise HTTPException(404, _text(problem)) from None
        headers = {"Cache-Control": "private, max-age=60"}
        return Response(jpeg, media_type="image/jpeg", headers=headers)


def _add_pages(app: FastAPI) -> None:
    types = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
    types[".svg"] = "image/svg+xml"
    routes = {"index.html": "/", "docs.html": "/docs"}
    for path in sorted(PAGE.iterdir()):
        headers = {"Cache-Control": "no-cache"}
        page = Response(path.read_bytes(), media_type=types[path.suffix], headers=headers)

        async def send(_: Request, page: Response = page) -> Response:
            return page

        app.add_route(routes.get(path.name, f"/{path.name}"), send, include_in_schema=False)


_EMPTY_QUERY = ("missing", "string_too_short", "string_pattern_mismatch")


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        reason = "describe a moment" if first["type"] in _EMPTY_QUERY else first["msg"]
        return JSONResponse({"detail": _text(f"{first['loc'][-1]}: {reason}")}, 422)

    @app.exception_handler(BusyError)
    async def busy(_: Request, __: BusyError) -> Response:
        detail = "too many requests at once; try again in a second"
        return JSONResponse({"detail": detail}, 503, {"Retry-After": "1"})

    @app.exception_handler(UserError)
    async def unusable(_: Request, error: UserError) -> Response:
        LOGGER.warning("%s", error)
        return JSONResponse({"detail": _text(error)}, 503)


class _FilmResponse(FileResponse):
    """A file, or ranges of its bytes; other units are ignored."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file."""
        units = Headers(scope=scope).get("range", "").partition("=")[0]
        if units.strip().lower() != "bytes":
            kept = [(name, value) for name, value in scope["headers"] if name != b"range"]
            scope = {**scope, "headers": kept}
        await super().__call__(scope, receive, send)


class _Guard:
    """Refuses requests with a body or a long address, and adds :data:`HEADERS` to answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refusal = _refusal(scope) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send_guarded)


def _refusal(scope: Scope) -> Response | None:
    headers = Headers(scope=scope)
    if "transfer-encoding" in headers or headers.get("content-length", "0").strip() != "0":
        return JSONResponse({"detail": "requests have no body here"}, 413, {"Connection": "close"})
    if len(scope["query_string"]) > MAX_QUERY_STRING:
        return JSONResponse({"detail": "the address is too long"}, 414)
    return None


_ID = re.compile("[1-9][0-9]{0,17}")


def _film(service: SearchService, video: str) -> Film:
    """Return the film that a path names, or answer with status 404."""
    film = service.engine.index.by_id.get(int(video)) if _ID.fullmatch(video) else None
    if film is None:
        raise HTTPException(404, "the index holds no such video")
    return film


def _readable(film: Film) -> tuple[Path, os.stat_result]:
    """Return the path and the status of a film's file, or answer with status 404."""
    if film.file is None:
        raise HTTPException(404, "the film came from a database of features: there is no file")
    with contextlib.suppress(OSError):
        status = film.file.stat()
        if stat.S_ISREG(status.st_mode) and os.access(film.file, os.R_OK):
            return film.file, status
    raise HTTPException(404, "the film is no longer where it was when it was indexed")


def _details(film: Film, index: Index) -> VideoDetails:
    try:
        played = playback(_readable(film)[0])
    except HTTPException as missing:
        played = Playback("", False, missing.detail)
    except OSError as error:
        played = Playback("", False, f"it cannot be read ({error.strerror})")
    lines = [LineEntry(start=x.start, end=x.end, text=x.text) for x in index.lines(film.id)]
    return VideoDetails(**_facts(film), **asdict(played), lines=lines)


def _facts(film: Film) -> dict[str, Any]:
    file = str(film.file or film.name)
    return {"video": str(film.id), "file": file, "name": film.name, "seconds": film.seconds}
