"""The service of the search under load: one client, sixteen, and minutes of mixed requests.

    python benchmarks/serve_search.py --folder /tmp/bench [--videos 2179] [--queries tvr_val.jsonl]
        [--seconds 60] [--minutes 10]

Starts serve_search.py on an index of benchmarks/search.py (a model of full size with random
weights, films of 20…80 frames), whose films lie in a few real files, and asks it over HTTP, every
time another sentence: drawn ones, or the "desc" of a JSON-lines file (whose tokens FOLDER/toker
makes, see there). The clients are threads that
sleep in the kernel until their answer comes. The mixed requests are searches, films that are left
in the middle, and thumbnails; memory and open descriptors of the service are read all along.
"""

import argparse
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

from benchmarks.search import make_index, make_run, make_tokenizer, sentences
from search.hero_scorer import HeroScorer
from search.store import Index, IndexWriter
from tests.support.colour_films import make_film
from utils.files import read_jsonl

REPOSITORY = Path(__file__).resolve().parents[1]
FILES, FILM_SECONDS, FILM_BYTES = 8, 130, 32 << 20
CLIENTS, ALONE, PIECE = 16, 100, 1 << 16
SAMPLE_SECONDS = 5.0
TICKS = os.sysconf("SC_CLK_TCK")


def prepare(folder: Path, videos: int) -> Path:
    """Return an index whose films have files; it is made where it is not there yet."""
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
        for file in files:  # more than the buffers between two programs hold
            os.truncate(file, FILM_BYTES)
        with IndexWriter(index, scorer.maker) as writer:
            places = zip(writer.state().films, itertools.cycle(files))
            writer.move({film.name: file for film, file in places})
    return index


class Process:
    """The service as the system sees it."""

    def __init__(self, number: int) -> None:
        self._folder = Path(f"/proc/{number}")

    def cpu(self) -> float:
        """CPU seconds until now."""
        fields = (self._folder / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self) -> float:
        """Resident MiB that are not pages of files."""
        lines = (self._folder / "status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024

    def descriptors(self) -> int:
        """Open files and connections."""
        return len(list((self._folder / "fd").iterdir()))


@contextmanager
def service(index: Path) -> Iterator[tuple[int, Process]]:
    """Start the service; give its port and process."""
    command = [sys.executable, "serve_search.py", "--index", str(index), "--port", "0"]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None  # a pipe
            port = int(process.stdout.readline().rpartition("127.0.0.1:")[2].split()[0])
            yield port, Process(process.pid)
        finally:
            process.terminate()


class Client:
    """One connection that is kept open."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, path: str) -> bytes:
        """Return an answer's body; RuntimeError unless it is a good one."""
        self._connection.request("GET", path)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {body[:200]!r}")
        return body

    def search(self, sentence: str) -> list:
        """Return the moments of a sentence."""
        return json.loads(self.ask(f"/api/search?q={quote(sentence)}&top=5"))["moments"]

    def abandon(self, video: int) -> None:
        """Ask for a film and leave in the middle."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        connection.request("GET", f"/api/videos/{video}/stream", headers={"Range": "bytes=9-"})
        connection.getresponse().read(PIECE // 8)
        connection.close()


def run_clients(
    works: Sequence[Callable[[], object]], seconds: float
) -> tuple[list[int], list[str]]:
    """Repeat each work in a thread of its own; return how often it was done, and what failed."""
    end = time.monotonic() + seconds
    counts, failures = [0] * len(works), []

    def repeat(place: int) -> None:
        while time.monotonic() < end:
            try:
                works[place]()
                counts[place] += 1
            except Exception as error:
                failures.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=repeat, args=(place,)) for place in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counts, failures


def _search_next(client: Client, typed: Iterator[str]) -> None:
    client.search(next(typed))


def _abandon_next(client: Client, videos: Iterator[int]) -> None:
    client.abandon(next(videos))


def _look_at_next(client: Client, videos: Iterator[int]) -> None:
    client.ask(f"/api/videos/{next(videos)}/thumbnail?t={next(videos) % FILM_SECONDS}")


def measure_alone(port: int, process: Process, typed: Iterator[str]) -> list[list]:
    """One client: every query waits for the one before."""
    client = Client(port)
    client.search(next(typed))
    times, begun = [], process.cpu()
    for _ in range(ALONE):
        start = time.perf_counter()
        assert len(client.search(next(typed))) == 5
        times.append(1e3 * (time.perf_counter() - start))
    return [
        ["one client, median (ms)", statistics.median(times)],
        ["one client, 95th percentile (ms)", sorted(times)[int(0.95 * ALONE)]],
        ["CPU of the service a query (ms)", 1e3 * (process.cpu() - begun) / ALONE],
    ]


def measure_many(port: int, process: Process, typed: Iterator[str], seconds: float) -> list[list]:
    """Sixteen clients, each asking again as soon as it is answered."""
    clients = [Client(port) for _ in range(CLIENTS)]
    works = [partial(_search_next, client, typed) for client in clients]
    begun, own = process.cpu(), time.process_time()
    counts, failures = run_clients(works, seconds)
    total = sum(counts)
    return [
        [f"{CLIENTS} clients (queries a second)", total / seconds],
        ["failed requests", len(failures)],
        ["CPU of the service a query (ms)", 1e3 * (process.cpu() - begun) / max(total, 1)],
        ["CPU of the clients a query (ms)", 1e3 * (time.process_time() - own) / max(total, 1)],
        *([f"  {failure}", 1] for failure in sorted(set(failures))[:3]),
    ]


def measure_mixed(
    port: int, process: Process, typed: Iterator[str], videos: int, minutes: float
) -> list[list]:
    """Searches, films that are left in the middle, thumbnails: what they leave behind."""
    numbers = itertools.cycle(range(1, videos + 1))
    works: list[Callable[[], object]] = []
    for _ in range(3):
        client = Client(port)
        works.append(partial(_search_next, client, typed))
        works.append(partial(_abandon_next, client, numbers))
        works.append(partial(_look_at_next, Client(port), numbers))
    samples = [(process.memory(), process.descriptors())]
    over = threading.Event()

    def sample() -> None:
        while not over.wait(SAMPLE_SECONDS):
            samples.append((process.memory(), process.descriptors()))

    watcher = threading.Thread(target=sample)
    watcher.start()
    counts, failures = run_clients(works, 60 * minutes)
    over.set()
    watcher.join()
    del works
    time.sleep(20)  # connections that are kept open end
    return [
        ["searches, streams, thumbnails", " ".join(str(sum(counts[n::3])) for n in range(3))],
        ["failed requests", len(failures)],
        ["memory at first, after each fifth (MiB)", _fifths([memory for memory, _ in samples])],
        ["descriptors at first, at most, after", _descriptors(samples, process)],
        *([f"  {failure}", 1] for failure in sorted(set(failures))[:3]),
    ]


def _fifths(values: list[float]) -> str:
    places = [round(fifth * (len(values) - 1) / 5) for fifth in range(6)]
    return " ".join(f"{values[place]:.0f}" for place in places)


def _descriptors(samples: list[tuple[float, int]], process: Process) -> str:
    numbers = [count for _, count in samples]
    return f"{numbers[0]} {max(numbers)} {process.descriptors()}"


def all_sentences(path: Path | None) -> Iterator[str]:
    """Sentences, no two of them alike; drawn ones where there is no file."""
    if path is None:
        return iter(sentences(10**5))
    return itertools.cycle(dict.fromkeys(row["desc"] for _, row in read_jsonl(path)))


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="for model, index and films")
    parser.add_argument("--videos", type=int, default=2179)
    parser.add_argument("--queries", type=Path, help='JSON lines with a "desc"')
    parser.add_argument("--seconds", type=float, default=60, help="of sixteen clients")
    parser.add_argument("--minutes", type=float, default=10, help="of mixed requests; 0: none")
    options = parser.parse_args(argv)
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
