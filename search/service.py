"""The search engine over HTTP: moments, films, thumbnails, and the page that shows them.

A request names a film by its id in the index, never a path, and only films of the index are served.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import torch
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, Field
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from search.answers import Moment
from search.batching import Batcher, BusyError
from search.engine import SENTENCES_AT_ONCE, MomentSearch
from search.pictures import thumbnail
from search.playback import media_type, playback
from search.records import Film
from search.store import DATABASE, Index
from utils.errors import UserError
from utils.logger import LOGGER
from utils.runtime import release_memory

MAX_QUERY_CHARACTERS = 500
MAX_TOP = 100
MAX_QUERY_STRING = 8192  # bytes, percent-encoded
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
MODEL_THREADS = 2  # batches at once: two that compute alone get more done than one on two cores
FILE_THREADS = 2  # that decode thumbnails and read spoken lines
MAX_FILE_WAITING = 256
POLL_SECONDS = 1.0  # between two looks at the index
RELEASE_SECONDS = 30.0  # between two times at which freed memory is given back
RENEWAL_SHARE = 0.1  # of the time, at most, that taking over new states of the index takes
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


class MomentEntry(BaseModel):
    """Where a film shows or says what the sentence describes; times in seconds."""

    video: str = Field(description="the film's id, as the paths below take it (percent-encode it)")
    file: str
    name: str = Field(description="the film's path below the folder that was indexed")
    start: float
    end: float
    score: float = Field(description="higher is better; comparable between sentences")
    text: str = Field(description="what is spoken there")
    doubtful: bool = Field(False, description="it scores no better than unrelated sentences do")
    note: str = Field("", description="what has to be said with it, such as untrained weights")


class SearchAnswer(BaseModel):
    """Moments, best first."""

    moments: list[MomentEntry]


class VideoEntry(BaseModel):
    """A film of the index."""

    video: str
    file: str
    name: str
    seconds: float


class VideoList(BaseModel):
    """The films of the index."""

    videos: list[VideoEntry]


class LineEntry(BaseModel):
    """What is spoken, and when, in seconds."""

    start: float
    end: float
    text: str


class VideoDetails(VideoEntry):
    """A film, what browsers make of it, and what is spoken in it."""

    codec: str = Field(description="how its pictures are encoded; empty if it cannot be read")
    plays: bool = Field(description="whether any browser plays it")
    problem: str = Field(description="what does not work, and how to fix it")
    lines: list[LineEntry]


class CurveAnswer(BaseModel):
    """How well each frame of a film fits a sentence; frame f begins at f · interval seconds."""

    interval: float
    scores: list[float]


class Health(BaseModel):
    """What is served."""

    status: str = Field(description="ok; stale, where the newest index cannot be taken over")
    videos: int
    frames: int
    model: str
    generation: int = Field(description="number of the index's state")
    note: str = Field(description="what has to be said with every answer")
    problem: str = Field(description="why the newest index cannot be taken over")


class SearchService:
    """One engine for many clients, and what takes its place when the index changes.

    The model runs on :data:`MODEL_THREADS` threads, in batches, which have the processors together;
    films are read on others; a further one looks whether the index has changed, and opens its new
    state while the old one answers.

    Args:
        engine: the first state.
        device: where it computes.
    """

    def __init__(self, engine: MomentSearch, device: str = "cpu") -> None:
        self.engine = engine
        self.problem = ""
        self._device = device
        self._identity = _identity(engine.index)
        self._processors = torch.get_num_threads()
        threads = min(MODEL_THREADS, self._processors) if device == "cpu" else 1
        self._batcher = Batcher(self._answer, SENTENCES_AT_ONCE, threads)
        self._files = ThreadPoolExecutor(FILE_THREADS, "films")
        self._watcher = ThreadPoolExecutor(1, "index")
        self._reading = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer within the block."""
        works = self._batcher.run(), self._watch(), self._release()
        tasks = [asyncio.create_task(work) for work in works]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._batcher.close()
            for threads in (self._files, self._watcher):
                threads.shutdown(wait=True, cancel_futures=True)

    async def search(self, sentence: str, top: int) -> list[Moment]:
        """Return the moments that a sentence describes."""
        return await self._batcher.ask(sentence, top)

    async def curve(self, film: Film, sentence: str) -> CurveAnswer:
        """Return how well a film's frames fit a sentence."""

        def compute() -> CurveAnswer:
            engine = self.engine
            scores = engine.score(film.id, sentence)
            return CurveAnswer(interval=engine.index.maker.interval, scores=scores.tolist())

        return await self._batcher.call(compute)

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
        processors = max(1, self._processors // self._batcher.busy)
        if torch.get_num_threads() != processors:
            torch.set_num_threads(processors)  # of this thread
        return engine.search(sentences, top) if engine.films else [[] for _ in sentences]

    async def _watch(self) -> None:
        while True:
            begun = time.monotonic()
            try:
                await self._renew()
                self.problem = ""
            except Exception as error:  # answers go on with the state there is
                self._tell(error)
            took = time.monotonic() - begun
            await asyncio.sleep(max(POLL_SECONDS, took / RENEWAL_SHARE))

    async def _release(self) -> None:
        """Give back what decoders and batches leave behind between pieces in use."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(RELEASE_SECONDS)
            await loop.run_in_executor(self._watcher, release_memory)

    def _tell(self, error: Exception) -> None:
        said = " ".join(str(error).split())
        if said != self.problem:
            expected = isinstance(error, (UserError, OSError))
            LOGGER.warning("the index of before stays: %s", said, exc_info=not expected)
        self.problem = said or type(error).__name__

    async def _renew(self) -> None:
        """Make the newest state of the index ready, then let it answer."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._watcher, self._newest)
        if found is None:
            return
        renewed, identity = found
        await self._batcher.call(renewed.warm_up)
        self.engine, self._identity = renewed, identity
        LOGGER.info("the index has %d films now", len(renewed.films))

    def _newest(self) -> tuple[MomentSearch, tuple[int, int] | None] | None:
        """An engine for the newest state of the index; None if that is what answers."""
        engine, identity = self.engine, _identity(self.engine.index)
        same = identity == self._identity
        folder = engine.index.folder
        newest = engine.index.refresh() if same or folder is None else Index.open(folder)
        if newest is engine.index:
            return None
        renewed = MomentSearch(
            newest,
            engine.scorer,
            nms_thd=engine.nms_thd,
            percentile=engine.percentile,
            device=self._device,
        )
        return renewed, identity


def _identity(index: Index) -> tuple[int, int] | None:
    """Return which file an index lies in: a whole folder may take another's place."""
    if index.folder is None:
        return None
    known = (index.folder / DATABASE).stat()
    return known.st_dev, known.st_ino


def make_app(service: SearchService, allowed_hosts: Sequence[str] = ()) -> FastAPI:
    """Return the application.

    Args:
        service: what answers.
        allowed_hosts: names besides those of the loopback interface that requests may be sent to.
    """

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
        found = await service.search(q, top)
        return SearchAnswer(moments=[_moment_entry(moment) for moment in found])

    @app.get("/api/videos/{video}/curve")
    async def curve(video: str, q: Sentence) -> CurveAnswer:
        """Tell how well every frame of a film fits a sentence."""
        return await service.curve(_film(service, video), q)

    @app.get("/api/health")
    async def health() -> Health:
        """Tell what is served."""
        engine = service.engine
        return Health(
            status="stale" if service.problem else "ok",
            videos=len(engine.films),
            frames=len(engine.index.frames),
            model=engine.index.maker.kind,
            generation=engine.index.generation,
            note=engine.note,
            problem=_text(service.problem),
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
    places = {"index.html": "/", "docs.html": "/docs"}
    for path in sorted(PAGE.iterdir()):
        place = places.get(path.name, f"/{path.name}")
        page = Response(
            path.read_bytes(), media_type=types[path.suffix], headers={"Cache-Control": "no-cache"}
        )
        app.add_route(place, _always(page), include_in_schema=False)


def _always(answer: Response) -> Callable:
    async def endpoint(_: Request) -> Response:
        return answer

    return endpoint


_NOTHING = "describe a moment"
_INVALID = {"missing": _NOTHING, "string_too_short": _NOTHING, "string_pattern_mismatch": _NOTHING}


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        said = _INVALID.get(first["type"], first["msg"])
        return JSONResponse({"detail": _text(f"{first['loc'][-1]}: {said}")}, 422)

    @app.exception_handler(BusyError)
    async def busy(_: Request, __: BusyError) -> Response:
        said = {"detail": "too many requests at once; try again in a second"}
        return JSONResponse(said, 503, {"Retry-After": "1"})

    @app.exception_handler(UserError)
    async def unusable(_: Request, error: UserError) -> Response:
        LOGGER.warning("%s", error)
        return JSONResponse({"detail": _text(error)}, 503)


class _FilmResponse(FileResponse):
    """A file of which ranges may be asked for; units other than bytes are passed over."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        units = Headers(scope=scope).get("range", "").partition("=")[0]
        if units.strip().lower() != "bytes":
            kept = [(name, value) for name, value in scope["headers"] if name != b"range"]
            scope = {**scope, "headers": kept}
        await super().__call__(scope, receive, send)


class _Guard:
    """Refuses what no request here has, and says how browsers must treat every answer."""

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


def _film(service: SearchService, video: str) -> Film:
    """The film that a path names."""
    number = int(video) if video.isascii() and video.isdecimal() and len(video) < 19 else -1
    film = service.engine.index.by_id.get(number)
    if film is None or str(number) != video:
        raise HTTPException(404, "the index holds no such video")
    return film


def _readable(film: Film) -> tuple[Path, os.stat_result]:
    """Return where a film lies, and what is known of its file."""
    if film.file is None:
        raise HTTPException(404, "the film came from a database of features: there is no file")
    try:
        known = film.file.stat()
        usable = stat.S_ISREG(known.st_mode) and os.access(film.file, os.R_OK)
    except OSError:
        usable = False
    if not usable:
        raise HTTPException(404, "the film is no longer where it was when it was indexed")
    return film.file, known


def _details(film: Film, index: Index) -> VideoDetails:
    codec, plays, problem = "", False, ""
    try:
        path, _ = _readable(film)
        judged = playback(path)
        codec, plays, problem = judged.codec, judged.plays, judged.problem
    except HTTPException as missing:
        problem = missing.detail
    except OSError as error:
        problem = f"it cannot be read ({error.strerror})"
    lines = [LineEntry(start=x.start, end=x.end, text=_text(x.text)) for x in index.lines(film.id)]
    return VideoDetails(**_facts(film), codec=codec, plays=plays, problem=problem, lines=lines)


def _facts(film: Film) -> dict[str, Any]:
    return {
        "video": str(film.id),
        "file": _text(film.file or film.name),
        "name": _text(film.name),
        "seconds": film.seconds,
    }


def _moment_entry(moment: Moment) -> MomentEntry:
    values: dict[str, Any] = {
        key: _text(v) if isinstance(v, str) else v for key, v in moment.record().items()
    }
    return MomentEntry(video=str(moment.video), name=_text(moment.name), **values)


def _text(value: object) -> str:
    """A text as JSON can have it: names of files may be no UTF-8."""
    return str(value).encode("utf-8", "replace").decode()
