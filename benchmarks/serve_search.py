"""The service of the search under load: one client, sixteen, and minutes of mixed requests.

    python benchmarks/serve_search.py --folder /tmp/bench [--videos 2179] [--queries tvr_val.jsonl]
        [--seconds 60] [--minutes 10]

Starts serve_search.py on an index of benchmarks/search.py (a full-size model with random weights,
films of 20…80 frames), whose films are a few real files, and sends it requests over HTTP. Every
sentence is different: synthetic, or the "desc" of a JSON-lines file (tokenised by FOLDER/toker, see
there). Clients are threads that block until their response arrives. The mixed requests are
searches, streams that are closed early, and thumbnails; memory and open descriptors of the service
are sampled throughout.
"""

import http.client
import itertools
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import utils.runtime  # noqa: F401  before PyTorch

# isort: split
from tabulate import tabulate

from benchmarks.common import ROOT, make_parser, status_mib
from benchmarks.search import make_index, make_run, make_tokenizer, sentences
from search.hero_scorer import HeroScorer
from search.store import Index, IndexWriter
from tests.support.colour_films import make_film
from utils.files import read_jsonl

FILES, FILM_SECONDS, FILM_BYTES = 8, 130, 32 << 20
CLIENTS, ALONE, PIECE = 16, 100, 1 << 16
SAMPLE_SECONDS = 5.0
TICKS = os.sysconf("SC_CLK_TCK")


def prepare(folder: Path, videos: int) -> Path:
    """Return an index whose films have files; it is made if it does not exist."""
    index = folder / f"served-{videos}"
    if not (folder / "toker").is_dir():
        make_tokenizer(folder / "toker")
    if not (folder / "run" / "ckpt").is_dir():
        make_run(folder / "run")
    if not index.is_dir():
        scorer = HeroScorer.open(folder / "run", "1", str(folder / "toker"))
        make_index(index, scorer, videos)
        files = [
            make_film(folder / f"film-{n}.mp4", [("red", 30), ("blue", 100)], size=(640, 360))
            for n in range(FILES)
        ]
        for file in files:  # larger than the buffers between two processes
            os.truncate(file, FILM_BYTES)
        with IndexWriter(index, scorer.maker) as writer:
            pairs = zip(writer.state().films, itertools.cycle(files))
            writer.move({film.name: file for film, file in pairs})
    return index


class Process:
    """The service as the system sees it."""

    def __init__(self, number: int) -> None:
        self._number, self._folder = number, Path(f"/proc/{number}")

    def cpu(self) -> float:
        """Return its CPU seconds so far."""
        fields = (self._folder / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self) -> float:
        """Return its resident MiB without files' pages."""
        return status_mib("RssAnon", self._number)

    def descriptors(self) -> int:
        """Return the number of open files and connections."""
        return len(list((self._folder / "fd").iterdir()))


@contextmanager
def service(index: Path) -> Iterator[tuple[int, Process]]:
    """Start the service; provide its port and process."""
    command = [sys.executable, "serve_search.py", "--index", str(index), "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None  # a pipe
            port = int(process.stdout.readline().rpartition("127.0.0.1:")[2].split()[0])
            yield port, Process(process.pid)
        finally:
            process.terminate()


class Client:
    """A client with one persistent connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def get(self, path: str) -> bytes:
        """Return a response's body; RuntimeError unless its status is 200."""
        self._connection.request("GET", path)
        response = self._connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {body[:200]!r}")
        return body

    def search(self, typed: Iterator[str]) -> list:
        """Return the moments of the next sentence."""
        return json.loads(self.get(f"/api/search?q={quote(next(typed))}&top=5"))["moments"]

    def abandon(self, videos: Iterator[int]) -> None:
        """Request the next film and close the connection early."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        path = f"/api/videos/{next(videos)}/stream"
        connection.request("GET", path, headers={"Range": "bytes=9-"})
        connection.getresponse().read(PIECE // 8)
        connection.close()

    def thumbnail(self, videos: Iterator[int]) -> None:
        """Request a thumbnail of the next film."""
        self.get(f"/api/videos/{next(videos)}/thumbnail?t={next(videos) % FILM_SECONDS}")


def run_clients(
    requests: Sequence[Callable[[], object]], seconds: float
) -> tuple[list[int], list[str]]:
    """Repeat each request in a thread of its own; return their counts, and the failures."""
    end = time.monotonic() + seconds
    counts, failures = [0] * len(requests), []

    def repeat(number: int) -> None:
        while time.monotonic() < end:
            try:
                requests[number]()
                counts[number] += 1
            except Exception as error:
                failures.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=repeat, args=(n,)) for n in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counts, failures


def _failure_rows(failures: list[str]) -> list[list]:
    return [["failed requests", len(failures)], *([f"  {f}", 1] for f in sorted(set(failures))[:3])]


def measure_alone(port: int, process: Process, typed: Iterator[str]) -> list[list]:
    """Return rows about one client, whose queries wait for each other."""
    client = Client(port)
    client.search(typed)
    times, cpu = [], process.cpu()
    for _ in range(ALONE):
        start = time.perf_counter()
        assert len(client.search(typed)) == 5
        times.append(1e3 * (time.perf_counter() - start))
    return [
        ["one client, median (ms)", statistics.median(times)],
        ["one client, 95th percentile (ms)", sorted(times)[int(0.95 * ALONE)]],
        ["CPU of the service a query (ms)", 1e3 * (process.cpu() - cpu) / ALONE],
    ]


def measure_many(port: int, process: Process, typed: Iterator[str], seconds: float) -> list[list]:
    """Return rows about sixteen clients, each sending the next query after its response."""
    requests = [partial(Client(port).search, typed) for _ in range(CLIENTS)]
    cpu, own = process.cpu(), time.process_time()
    counts, failures = run_clients(requests, seconds)
    total = max(sum(counts), 1)
    return [
        [f"{CLIENTS} clients (queries a second)", sum(counts) / seconds],
        ["CPU of the service a query (ms)", 1e3 * (process.cpu() - cpu) / total],
        ["CPU of the clients a query (ms)", 1e3 * (time.process_time() - own) / total],
        *_failure_rows(failures),
    ]


def measure_mixed(
    port: int, process: Process, typed: Iterator[str], videos: int, minutes: float
) -> list[list]:
    """Return rows about memory and descriptors under searches, aborted streams, thumbnails."""
    numbers = itertools.cycle(range(1, videos + 1))
    requests: list[Callable[[], object]] = []
    for _ in range(3):
        client = Client(port)
        requests.append(partial(client.search, typed))
        requests.append(partial(client.abandon, numbers))
        requests.append(partial(Client(port).thumbnail, numbers))
    samples = [(process.memory(), process.descriptors())]
    over = threading.Event()

    def sample() -> None:
        while not over.wait(SAMPLE_SECONDS):
            samples.append((process.memory(), process.descriptors()))

    sampler = threading.Thread(target=sample)
    sampler.start()
    counts, failures = run_clients(requests, 60 * minutes)
    over.set()
    sampler.join()
    del requests
    time.sleep(20)  # until the persistent connections are closed
    memory, descriptors = zip(*samples)
    fifths = [memory[round(fifth * (len(memory) - 1) / 5)] for fifth in range(6)]
    open_files = f"{descriptors[0]} {max(descriptors)} {process.descriptors()}"
    return [
        ["searches, streams, thumbnails", " ".join(str(sum(counts[n::3])) for n in range(3))],
        ["memory at first, after each fifth (MiB)", " ".join(f"{mib:.0f}" for mib in fifths)],
        ["descriptors at first, at most, after", open_files],
        *_failure_rows(failures),
    ]


def all_sentences(path: Path | None) -> Iterator[str]:
    """Yield different sentences, of a file or synthetic ones."""
    if path is None:
        return iter(sentences(10**5))
    return itertools.cycle(dict.fromkeys(row["desc"] for _, row in read_jsonl(path)))


def main() -> None:
    parser = make_parser(__doc__, videos=2179, seconds=60.0, minutes=10.0)
    parser.add_argument("--folder", type=Path, required=True, help="for model, index and films")
    parser.add_argument("--queries", type=Path, help='JSON lines with a "desc"')
    options = parser.parse_args()
    index = prepare(options.folder, options.videos)
    typed = all_sentences(options.queries)
    films = len(Index.open(index).films)
    with service(index) as (port, process):
        print("load before:", *os.getloadavg())
        rows = measure_alone(port, process, typed)
        print(tabulate(rows, floatfmt=".1f"), flush=True)
        rows = measure_many(port, process, typed, options.seconds)
        print(tabulate(rows, floatfmt=".1f"), flush=True)
        if options.minutes:
            rows = measure_mixed(port, process, typed, films, options.minutes)
            print(tabulate(rows, floatfmt=".1f"))
        print("load after:", *os.getloadavg())


if __name__ == "__main__":
    main()
