"""What a GPU does with HERO, in one command: tables, and the same as JSON.

    python benchmarks/gpu.py [--only SECTION …] [--precision bf16] [--output gpu.json]
    python benchmarks/gpu.py --small --device cpu        # tries the program itself

Full-size models with random weights, batches of the recipes' size made up in memory; no files, no
network. A section that fails says so in its table, and the others go on; the exit code is then 1.
Times are means of steps that follow one another, waited for at the end alone. “Share of the peak”
is that of the largest rate that multiplying two matrices reached in the same precision; floating
point operations are those of the packed step, so that padding counts as lost.
"""

import argparse
import gc
import itertools
import json
import os
import platform
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from tabulate import tabulate
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import decoding
from benchmarks.cases import (
    CASES,
    RECIPE,
    SMALL,
    Case,
    Sizes,
    difference,
    half_precision,
    model_config,
    retrieval_batch,
)
from benchmarks.padded import standing_in
from benchmarks.pretrain_objectives import videos_of
from benchmarks.retrieval import SETTINGS
from config.training import VcmrOptions
from data.loader import TrainLoader, _on_device
from engine.precision import Mode, Precision
from engine.restore import RunFolder
from engine.run import Run
from engine.trainer import Task, Trainer
from evaluation.ranking import CorpusIndex
from model.decoding import DecodingSettings
from model.vcmr import MomentRetrievalModel
from utils.batch import TensorBatch
from utils.distributed import setup

FORMATS: dict[str, tuple[torch.dtype, bool]] = {  # number format, whether as TF32
    "fp32": (torch.float32, False),
    "tf32": (torch.float32, True),
    "bf16": (torch.bfloat16, False),
    "fp16": (torch.float16, False),
}
SYNCHRONISES = "called a synchronizing CUDA operation"
QUERIES = 80


@dataclass(frozen=True)
class Amounts:
    """How much each section does.

    Attributes:
        sizes: of models and batches.
        seconds: that steps are repeated for, at least.
        profiled: the tasks whose operations are counted.
        matrix: rows of the matrices that are multiplied for the peak.
        sweep: batch sizes.
        encoded: videos encoded at a time.
        corpora: videos of the corpora that are searched.
        clips, words: that are written.
    """

    sizes: Sizes
    seconds: float
    profiled: tuple[str, ...]
    matrix: int
    sweep: tuple[int, ...]
    encoded: int
    corpora: tuple[int, ...]
    clips: int
    words: int


FULL = Amounts(
    RECIPE, 1.0, tuple(CASES), 8192, (8, 16, 32, 64, 128), 50, (2179, 20_000, 200_000), 64, 30
)
SHORT = Amounts(SMALL, 0.0, ("TVR",), 128, (1, 2), 2, (30, 60), 3, 4)


@dataclass(frozen=True)
class Bench:
    """Where it is measured, and how much."""

    device: torch.device
    mode: Mode
    amounts: Amounts

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def wait(self) -> None:
        """Until the device has done all."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def milliseconds(self, run: Callable[[], object]) -> float:
        """Mean of calls that follow one another; two before them warm up, where there is time."""
        enough = self.amounts.seconds
        for _ in range(2 if enough else 0):
            run()
        seconds = self._seconds(run, 1)
        if enough:
            count = min(50, 1 + int(enough / seconds))
            seconds = self._seconds(run, count) / count
        return 1e3 * seconds

    def _seconds(self, run: Callable[[], object], count: int) -> float:
        self.wait()
        begun = time.perf_counter()
        for _ in range(count):
            run()
        self.wait()
        return time.perf_counter() - begun

    def peak_mib(self, run: Callable[[], object]) -> float | None:
        """Memory of the device at its highest while ``run`` runs."""
        if not self.on_gpu:
            return None
        free(self)
        torch.cuda.reset_peak_memory_stats()
        run()
        self.wait()
        return torch.cuda.max_memory_allocated() / 2**20


Row = list[str | int | float | None]
Section = Callable[[Bench], Iterator[Row]]
SECTIONS: dict[str, tuple[list[str], Section]] = {}


def section(name: str, *headers: str) -> Callable[[Section], Section]:
    """Declare what yields the rows of a table."""

    def declare(rows: Section) -> Section:
        SECTIONS[name] = (list(headers), rows)
        return rows

    return declare


@section("device", "what", "value")
def device_rows(bench: Bench) -> Iterator[Row]:
    """Device and versions."""
    yield ["Python, PyTorch", f"{platform.python_version()}, {torch.__version__}"]
    yield ["cores", len(os.sched_getaffinity(0))]
    if bench.on_gpu:
        properties = torch.cuda.get_device_properties(bench.device)
        yield ["GPU", properties.name]
        yield ["multiprocessors", properties.multi_processor_count]
        yield ["memory (MiB)", properties.total_memory // 2**20]
        yield ["CUDA, cuDNN", f"{torch.version.cuda}, {torch.backends.cudnn.version()}"]


@cache
def peak_flops(bench: Bench, name: str) -> float:
    """Floating point operations a second when two matrices are multiplied."""
    dtype, as_tf32 = FORMATS[name]
    size = bench.amounts.matrix
    one, other = torch.randn(2, size, size, device=bench.device).to(dtype)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = as_tf32
    try:
        return 2 * size**3 / (bench.milliseconds(lambda: one @ other) / 1e3)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@section("peak", "precision", "TFLOP/s")
def peak_rows(bench: Bench) -> Iterator[Row]:
    """Multiplying two square matrices of random numbers."""
    for name in FORMATS:
        if bench.on_gpu or name != "tf32":
            yield [name, peak_flops(bench, name) / 1e12]


@cache
def case_of(name: str, sizes: Sizes) -> Case:
    """A task's case, made once."""
    torch.manual_seed(0)
    return CASES[name](sizes)


def free(bench: Bench) -> None:
    """Give back what nobody holds."""
    if bench.on_gpu:
        gc.collect()
        torch.cuda.empty_cache()


class Repeated(TrainLoader):
    """The same batch again and again, brought to the device as a training's batches are."""

    def __init__(self, batch: TensorBatch, device: torch.device) -> None:
        self._copies = _on_device(itertools.repeat(batch), device)

    def __next__(self) -> TensorBatch:
        return next(self._copies)


@contextmanager
def training(bench: Bench, case: Case) -> Iterator[tuple[Trainer, TensorBatch]]:
    """A trainer whose every step takes the case's batch again, and that batch on the device."""
    with tempfile.TemporaryDirectory() as folder:
        options = VcmrOptions(
            output_dir=folder,
            train_query_txt_db="-",
            val_query_txt_db="-",
            sub_txt_db="-",
            vfeat_db="-",
            gradient_accumulation_steps=1,
        )
        comm, _ = setup(options.seed)
        precision = Precision(bench.mode, bench.device)
        config = model_config(bench.amounts.sizes, "finetune")
        run = Run(options, comm, bench.device, config, precision, RunFolder(folder))
        travelling = half_precision(case.batch)
        if bench.on_gpu:
            travelling = travelling.pin_memory()
        task = Task(
            name="benchmark",
            model=case.model.to(bench.device).train(),
            loader=Repeated(travelling, bench.device),
            loss_weights=defaultdict(lambda: 1.0),
            validate=lambda step: {},
            set_step=getattr(case.model, "set_step", lambda step, micro_step: None),
        )
        trainer = Trainer(task, run)
        try:
            yield trainer, travelling.to(bench.device)
        finally:  # what is measured next has the device's memory alone
            if trainer.writer:
                trainer.writer.close()
            case.model.zero_grad(set_to_none=True)
            case.model.cpu()


def encoder_of(case: Case, version: str, batch: TensorBatch) -> AbstractContextManager[None]:
    """The model computes ``packed``, as it is, or ``padded``."""
    if version == "packed":
        return nullcontext()
    return standing_in(case.model, case.padded(case.model.v_encoder, batch))


@section(
    "steps",
    *("task", "version", "positions", "ms", "positions/s", "TFLOP"),
    *("share of the peak", "MiB", "times padded"),
)
def step_rows(bench: Bench) -> Iterator[Row]:
    """A training step of every task: copy, forward, backward, clipping, optimizer."""
    peak = peak_flops(bench, bench.mode)
    for name in CASES:
        case = case_of(name, bench.amounts.sizes)
        with training(bench, case) as (trainer, batch):
            share = difference(case, batch)
            if share > 1e-3:
                raise RuntimeError(f"{name}: losses padded and packed differ by {share:.1e}")
            with FlopCounterMode(display=False) as counted:
                trainer.step()
            flop, found = counted.get_total_flops(), {}
            for version in ("padded", "packed"):
                with encoder_of(case, version, batch):
                    found[version] = bench.milliseconds(trainer.step), bench.peak_mib(trainer.step)
            for version, (ms, mib) in found.items():
                rates = [1e3 * case.positions / ms, flop / 1e12, 1e3 * flop / ms / peak]
                yield [name, version, case.positions, ms, *rates, mib, found["padded"][0] / ms]


@section("phases", "phase of a TVR step", "ms")
def phase_rows(bench: Bench) -> Iterator[Row]:
    """Yield where the time of a step goes, by the trainer's own clock, and the copy alone."""
    case = case_of("TVR", bench.amounts.sizes)
    with training(bench, case) as (trainer, _):
        bench.milliseconds(trainer.step)
        trainer.clock.take_means(1)
        for _ in range(steps := 10 if bench.on_gpu else 1):
            trainer.step()
        for name, seconds in trainer.clock.take_means(steps).items():
            yield [name.removeprefix("seconds/").replace("data", "waiting for data"), 1e3 * seconds]
        travelling = half_precision(case.batch)
        travelling = travelling.pin_memory() if bench.on_gpu else travelling
        megabytes = videos_of(travelling).features.nbytes / 1e6
        copying = bench.milliseconds(lambda: travelling.to(bench.device))
        yield [f"copy to the device, {megabytes:.0f} MB of features, alone", copying]


@section("launches", "of a step", "operations", "kernels", "copies, fills", "synchronisations")
def launch_rows(bench: Bench) -> Iterator[Row]:
    """Yield what the host asks the device for, and how often it waits; synchronisations as
    PyTorch's own debugging mode sees them (waiting for an event does not count)."""
    for name in bench.amounts.profiled:
        with training(bench, case_of(name, bench.amounts.sizes)) as (trainer, _):
            trainer.step()  # the optimizer makes its moments
            activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * bench.on_gpu
            with profile(activities=activities) as profiled:
                trainer.step()
                bench.wait()
            waits = synchronisations(bench, trainer.step)
        kinds = Counter(map(kind_of, profiled.events()))
        yield [name, kinds["operation"], kinds["kernel"], kinds["copy"], waits]


def kind_of(event: "torch.autograd.profiler_util.FunctionEvent") -> str:
    """Return whether an event is a kernel or a copy of the device, or an operation that holds no
    other."""
    if getattr(event, "is_user_annotation", False):
        return ""
    if event.device_type == torch.autograd.DeviceType.CUDA:
        return "copy" if event.name.startswith(("Memcpy", "Memset")) else "kernel"
    within = any(child.name.startswith("aten::") for child in event.cpu_children)
    return "operation" if event.name.startswith("aten::") and not within else ""


def synchronisations(bench: Bench, run: Callable[[], object]) -> int:
    """Return how often the host waits for the device."""
    if not bench.on_gpu:
        return 0
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum(SYNCHRONISES in str(warning.message) for warning in said)


@section("sweep", "videos in a TVR batch", "ms", "videos/s", "MiB")
def sweep_rows(bench: Bench) -> Iterator[Row]:
    """Larger and smaller batches; one that does not fit ends it."""
    for videos in bench.amounts.sweep:
        batch = retrieval_batch(videos)
        case = replace(case_of("TVR", bench.amounts.sizes), batch=batch, video=batch.video)
        with training(bench, case) as (trainer, _):
            ms = bench.milliseconds(trainer.step)
            yield [videos, ms, 1e3 * videos / ms, bench.peak_mib(trainer.step)]


def searching_model(bench: Bench) -> MomentRetrievalModel:
    """TVR's, on the device."""
    model = case_of("TVR", bench.amounts.sizes).model
    assert isinstance(model, MomentRetrievalModel)
    return model.to(bench.device).eval()


@section("corpus", "videos at a time", "ms", "videos/s")
def corpus_rows(bench: Bench) -> Iterator[Row]:
    """Encoding a corpus to search in."""
    model = searching_model(bench)
    precision = Precision(bench.mode, bench.device)
    video = half_precision(retrieval_batch(bench.amounts.encoded).video)
    video = video.pin_memory() if bench.on_gpu else video

    def encode() -> None:
        with torch.no_grad(), precision.autocast():
            model.encode_videos(video.to(bench.device))

    ms = bench.milliseconds(encode)
    yield [bench.amounts.encoded, ms, 1e3 * bench.amounts.encoded / ms]


@section("ranking", "videos", "GB", "ms a query", "queries/s")
def ranking_rows(bench: Bench) -> Iterator[Row]:
    """VCMR, SVMR and VR of 80 queries at a time."""
    model = searching_model(bench)
    hidden = model.video_query_linear.in_features
    for videos in bench.amounts.corpora:
        lengths = torch.randint(20, 81, (videos,)).tolist()
        ms = bench.milliseconds(searching(model, lengths, hidden, bench.device))
        yield [videos, sum(lengths) * hidden * 4 / 1e9, ms / QUERIES, 1e3 * QUERIES / ms]
        free(bench)  # the next one is larger


def searching(
    model: MomentRetrievalModel, lengths: list[int], hidden: int, device: torch.device
) -> Callable[[], object]:
    """A search of a corpus with videos of these lengths, of which every thousandth is the same."""
    some = torch.randn(1000, max(lengths), hidden, device=device)
    frames = {str(n): some[n % 1000, :length] for n, length in enumerate(lengths)}
    vectors = torch.randn(2, QUERIES, hidden, device=device)
    own = torch.randint(len(lengths), (QUERIES,), device=device)
    with torch.no_grad():
        index = CorpusIndex(frames, model.pool_scores, model.span_probabilities)
    return torch.no_grad()(lambda: index.search(vectors[0], SETTINGS, vectors[1], own))


@section("captions", "search", "ms", "captions/s")
def caption_rows(bench: Bench) -> Iterator[Row]:
    """Writing captions of encoded clips, none of which ends early."""
    clips, words = bench.amounts.clips, bench.amounts.words
    small = bench.amounts.sizes is SMALL
    model = decoding.build_model(bench.device, "hero_debug_tvc" if small else "hero_tvc")
    vocabulary = model.v_encoder.f_encoder.lm_head.vocab_size
    frames, places = decoding.make_clips(
        clips, model.position_embeddings.embedding_dim, bench.device
    )
    known = tuple(i for i in range(vocabulary) if i != decoding.END)
    precision = Precision(bench.mode, bench.device)
    for beam in (1, 5):
        settings = DecodingSettings(decoding.BEGIN, decoding.END, known, words, beam)

        def write(settings: DecodingSettings = settings) -> None:
            with torch.no_grad(), precision.autocast():
                decoding.write_kept(model, frames, places, settings)

        ms = bench.milliseconds(write)
        yield ["greedy" if beam == 1 else f"beam of {beam}", ms, 1e3 * clips / ms]


def measure(name: str, bench: Bench) -> tuple[list[Row], str | None]:
    """Rows of a section, and what went wrong."""
    rows: list[Row] = []
    try:
        rows.extend(SECTIONS[name][1](bench))
    except (RuntimeError, AssertionError) as error:  # also where memory does not suffice
        return rows, f"{type(error).__name__}: {str(error).splitlines()[0]}"
    finally:
        free(bench)
    return rows, None


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--precision", choices=("bf16", "fp16", "fp32"), default="bf16")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny models and batches")
    parser.add_argument("--output", type=Path, help="write the tables there, as JSON")
    options = parser.parse_args(argv)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch finds no CUDA device here (--small --device cpu tries the program)")
    return options


def main(argv: list[str] | None = None) -> int:
    """Print a table per section; return how many failed."""
    options = parse_arguments(argv)
    amounts = SHORT if options.small else FULL
    bench = Bench(torch.device(options.device), options.precision, amounts)
    tables, failed = {}, 0
    for name in options.only:
        begun = time.perf_counter()
        headers, (rows, problem) = SECTIONS[name][0], measure(name, bench)
        seconds = time.perf_counter() - begun
        print(f"\n{name} ({options.precision}, {seconds:.0f} s)")
        print(tabulate(rows, headers, floatfmt=".3g", intfmt=","), flush=True)
        if problem:
            print(f"failed: {problem}")
            failed += 1
        tables[name] = {"headers": headers, "rows": rows, "seconds": seconds, "failed": problem}
        if options.output:  # after each section: what is measured is kept
            options.output.write_text(json.dumps(tables, indent=1, ensure_ascii=False))
    return failed


if __name__ == "__main__":
    sys.exit(min(1, main()))
