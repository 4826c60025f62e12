"""HERO on a GPU: rates, times and memory of every task, as tables and as JSON.

    python benchmarks/gpu.py [--only SECTION …] [--precision bf16] [--output gpu.json]
    python benchmarks/gpu.py --small --device cpu        # tests the program itself

Full-size models with random weights, synthetic batches of the recipes' size in memory; no files, no
network. A section that fails says so under its table, and the others run; the exit code is then 1.
Times are means of consecutive steps with one synchronisation at the end. “Share of the peak” is
relative to the largest rate of a matrix product in the same precision; floating-point operations
are those of the packed step, so that padding counts as lost.
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
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
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
    BatchT,
    Case,
    Sizes,
    difference,
    half_precision,
    sized_config,
)
from benchmarks.common import tvr_like_batch
from benchmarks.padded import replaced_encoder
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
    """Sizes of what each section measures."""

    sizes: Sizes  # of models and batches
    seconds: float  # that steps are repeated for, at least
    profiled: tuple[str, ...]  # tasks whose operations are counted
    matrix: int  # rows of the matrices that are multiplied for the peak
    sweep: tuple[int, ...]  # batch sizes
    encoded: int  # videos encoded at a time
    corpora: tuple[int, ...]  # videos of the corpora that are searched
    clips: int
    words: int  # of a caption


FULL = Amounts(
    RECIPE, 1.0, tuple(CASES), 8192, (8, 16, 32, 64, 128), 50, (2179, 20_000, 200_000), 64, 30
)
SHORT = Amounts(SMALL, 0.0, ("TVR",), 128, (1, 2), 2, (30, 60), 3, 4)


@dataclass(frozen=True)
class Bench:
    """Device, precision and sizes of a measurement."""

    device: torch.device
    mode: Mode
    amounts: Amounts

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def wait(self) -> None:
        """Wait until the device has finished."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def milliseconds(self, run: Callable[[], object]) -> float:
        """Return the mean of consecutive calls, after two that warm up (none in a short run)."""
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
        start = time.perf_counter()
        for _ in range(count):
            run()
        self.wait()
        return time.perf_counter() - start

    def peak_mib(self, run: Callable[[], object]) -> float | None:
        """Return the peak of the device's memory while ``run`` runs."""
        if not self.on_gpu:
            return None
        self.free()
        torch.cuda.reset_peak_memory_stats()
        run()
        self.wait()
        return torch.cuda.max_memory_allocated() / 2**20

    def loaded(self, batch: BatchT) -> BatchT:
        """Return a batch as the loader yields it: features in half precision, pinned memory."""
        batch = half_precision(batch)
        return batch.pin_memory() if self.on_gpu else batch

    def free(self) -> None:
        """Return unused memory to the device."""
        if self.on_gpu:
            gc.collect()
            torch.cuda.empty_cache()


Row = list[str | int | float | None]
Section = Callable[[Bench], Iterator[Row]]
SECTIONS: dict[str, tuple[list[str], Section]] = {}


def section(name: str, *headers: str) -> Callable[[Section], Section]:
    """Register a generator of the rows of a table."""

    def register(rows: Section) -> Section:
        SECTIONS[name] = (list(headers), rows)
        return rows

    return register


@section("device", "what", "value")
def device_rows(bench: Bench) -> Iterator[Row]:
    """Yield the device and versions."""
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
    """Return floating-point operations a second of a product of two square matrices."""
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
    """Yield the rate of a matrix product, by precision."""
    for name in FORMATS:
        if bench.on_gpu or name != "tf32":
            yield [name, peak_flops(bench, name) / 1e12]


@cache
def case_of(name: str, sizes: Sizes) -> Case:
    """Return a task's case, made once."""
    torch.manual_seed(0)
    return CASES[name](sizes)


class Repeated(TrainLoader):
    """Yields the same batch at every step, copied to the device as a training's batches are."""

    def __init__(self, batch: TensorBatch, device: torch.device) -> None:
        self._copies = _on_device(itertools.repeat(batch), device)

    def __next__(self) -> TensorBatch:
        return next(self._copies)


@contextmanager
def training(bench: Bench, case: Case) -> Iterator[tuple[Trainer, TensorBatch]]:
    """Provide a trainer whose steps all take the case's batch, and that batch on the device."""
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
        config = sized_config(bench.amounts.sizes, "finetune")
        run = Run(options, comm, bench.device, config, precision, RunFolder(folder))
        batch = bench.loaded(case.batch)
        task = Task(
            name="benchmark",
            model=case.model.to(bench.device).train(),
            loader=Repeated(batch, bench.device),
            loss_weights=defaultdict(lambda: 1.0),
            validate=lambda step: {},
            set_step=getattr(case.model, "set_step", lambda step, micro_step: None),
        )
        trainer = Trainer(task, run)
        try:
            yield trainer, batch.to(bench.device)
        finally:  # leaves the device's memory to the next measurement
            if trainer.writer:
                trainer.writer.close()
            case.model.zero_grad(set_to_none=True)
            case.model.cpu()


@section(
    "steps",
    *("task", "version", "positions", "ms", "positions/s", "TFLOP"),
    *("share of the peak", "MiB", "times padded"),
)
def step_rows(bench: Bench) -> Iterator[Row]:
    """Yield a training step of every task: copy, forward, backward, clipping, optimizer."""
    peak = peak_flops(bench, bench.mode)
    for name in CASES:
        case = case_of(name, bench.amounts.sizes)
        with training(bench, case) as (trainer, batch):
            share = difference(case, batch)
            if share > 1e-3:
                raise RuntimeError(f"{name}: losses padded and packed differ by {share:.1e}")
            with FlopCounterMode(display=False) as counted:
                trainer.step()
            flop, measured = counted.get_total_flops(), {}
            encoder = case.model.v_encoder
            for version, module in (("padded", case.padded(encoder, batch)), ("packed", encoder)):
                with replaced_encoder(case.model, module):
                    ms, mib = bench.milliseconds(trainer.step), bench.peak_mib(trainer.step)
                measured[version] = ms, mib
            for version, (ms, mib) in measured.items():
                rates = [1e3 * case.positions / ms, flop / 1e12, 1e3 * flop / ms / peak]
                yield [name, version, case.positions, ms, *rates, mib, measured["padded"][0] / ms]


@section("phases", "phase of a TVR step", "ms")
def phase_rows(bench: Bench) -> Iterator[Row]:
    """Yield the phases of a step, by the trainer's own clock, and the copy of a batch alone."""
    case = case_of("TVR", bench.amounts.sizes)
    with training(bench, case) as (trainer, _):
        bench.milliseconds(trainer.step)
        trainer.clock.take_means(1)
        for _ in range(steps := 10 if bench.on_gpu else 1):
            trainer.step()
        for name, seconds in trainer.clock.take_means(steps).items():
            yield [name.removeprefix("seconds/").replace("data", "waiting for data"), 1e3 * seconds]
        batch, megabytes = bench.loaded(case.batch), case.video.features.nbytes / 2e6
        copying = bench.milliseconds(lambda: batch.to(bench.device))
        yield [f"copy to the device, {megabytes:.0f} MB of features, alone", copying]


@section("launches", "of a step", "operations", "kernels", "copies, fills", "synchronisations")
def launch_rows(bench: Bench) -> Iterator[Row]:
    """Yield operations, kernels, copies and synchronisations of a step; the last as PyTorch's
    debug mode sees them (waiting for an event does not count)."""
    for name in bench.amounts.profiled:
        with training(bench, case_of(name, bench.amounts.sizes)) as (trainer, _):
            trainer.step()  # the optimizer allocates its moments
            activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * bench.on_gpu
            with profile(activities=activities) as profiled:
                trainer.step()
                bench.wait()
            waits = synchronisations(bench, trainer.step)
        kinds = Counter(map(kind_of, profiled.events()))
        yield [name, kinds["operation"], kinds["kernel"], kinds["copy"], waits]


def kind_of(event: "torch.autograd.profiler_util.FunctionEvent") -> str:
    """Return whether an event is a kernel, a copy, or an operation without inner operations."""
    if getattr(event, "is_user_annotation", False):
        return ""
    if event.device_type == torch.autograd.DeviceType.CUDA:
        return "copy" if event.name.startswith(("Memcpy", "Memset")) else "kernel"
    within = any(child.name.startswith("aten::") for child in event.cpu_children)
    return "operation" if event.name.startswith("aten::") and not within else ""


def synchronisations(bench: Bench, run: Callable[[], object]) -> int:
    """Return how many times the host waits for the device."""
    if not bench.on_gpu:
        return 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum(SYNCHRONISES in str(warning.message) for warning in caught)


@section("sweep", "videos in a TVR batch", "ms", "videos/s", "MiB")
def sweep_rows(bench: Bench) -> Iterator[Row]:
    """Yield batches of growing size; one that does not fit ends the section."""
    for videos in bench.amounts.sweep:
        batch = tvr_like_batch(videos)
        case = replace(case_of("TVR", bench.amounts.sizes), batch=batch, video=batch.video)
        with training(bench, case) as (trainer, _):
            ms = bench.milliseconds(trainer.step)
            yield [videos, ms, 1e3 * videos / ms, bench.peak_mib(trainer.step)]


def searching_model(bench: Bench) -> MomentRetrievalModel:
    """Return TVR's model on the device, in evaluation mode."""
    model = case_of("TVR", bench.amounts.sizes).model
    assert isinstance(model, MomentRetrievalModel)
    return model.to(bench.device).eval()


@section("corpus", "videos at a time", "ms", "videos/s")
def corpus_rows(bench: Bench) -> Iterator[Row]:
    """Yield the rate of encoding a corpus."""
    model = searching_model(bench)
    precision = Precision(bench.mode, bench.device)
    video = bench.loaded(tvr_like_batch(bench.amounts.encoded).video)

    def encode() -> None:
        with torch.no_grad(), precision.autocast():
            model.encode_videos(video.to(bench.device))

    ms = bench.milliseconds(encode)
    yield [bench.amounts.encoded, ms, 1e3 * bench.amounts.encoded / ms]


@section("ranking", "videos", "GB", "ms a query", "queries/s")
@torch.no_grad()
def ranking_rows(bench: Bench) -> Iterator[Row]:
    """Yield VCMR, SVMR and VR of 80 queries at a time; every thousandth video is the same."""
    model = searching_model(bench)
    hidden = model.video_query_linear.in_features
    for videos in bench.amounts.corpora:
        lengths = torch.randint(20, 81, (videos,)).tolist()
        some = torch.randn(1000, max(lengths), hidden, device=bench.device)
        frames = {str(n): some[n % 1000, :length] for n, length in enumerate(lengths)}
        index = CorpusIndex(frames, model.pool_scores, model.span_probabilities)
        queries, span_queries = torch.randn(2, QUERIES, hidden, device=bench.device)
        true_videos = torch.randint(videos, (QUERIES,), device=bench.device)
        search = partial(index.search, queries, SETTINGS, span_queries, true_videos)
        ms = bench.milliseconds(search)
        yield [videos, sum(lengths) * hidden * 4 / 1e9, ms / QUERIES, 1e3 * QUERIES / ms]
        del some, frames, index, search
        bench.free()  # the next corpus is larger


@section("captions", "search", "ms", "captions/s")
def caption_rows(bench: Bench) -> Iterator[Row]:
    """Yield the rate of writing captions of encoded clips, none of which ends early."""
    clips, words = bench.amounts.clips, bench.amounts.words
    small = bench.amounts.sizes is SMALL
    model = decoding.build_model(bench.device, "hero_debug_tvc" if small else "hero_tvc")
    vocabulary = model.v_encoder.f_encoder.lm_head.vocab_size
    frames, spans = decoding.make_clips(
        clips, model.position_embeddings.embedding_dim, bench.device
    )
    known = tuple(i for i in range(vocabulary) if i != decoding.END)
    precision = Precision(bench.mode, bench.device)
    for beam in (1, 5):
        settings = DecodingSettings(decoding.BEGIN, decoding.END, known, words, beam)

        def write(settings: DecodingSettings = settings) -> None:
            with torch.no_grad(), precision.autocast():
                decoding.write_cached(model, frames, spans, settings)

        ms = bench.milliseconds(write)
        yield ["greedy" if beam == 1 else f"beam of {beam}", ms, 1e3 * clips / ms]


def measure(name: str, bench: Bench) -> tuple[list[Row], str | None]:
    """Return the rows of a section, and its error if it failed."""
    rows: list[Row] = []
    try:
        rows.extend(SECTIONS[name][1](bench))
    except (RuntimeError, AssertionError) as error:  # including running out of memory
        return rows, f"{type(error).__name__}: {str(error).splitlines()[0]}"
    finally:
        bench.free()
    return rows, None


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--precision", choices=("bf16", "fp16", "fp32"), default="bf16")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny models and batches")
    parser.add_argument("--output", type=Path, help="write the tables there, as JSON")
    options = parser.parse_args(argv)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch finds no CUDA device here (--small --device cpu tests the program)")
    return options


def main(argv: list[str] | None = None) -> int:
    """Print a table per section; return how many failed."""
    options = parse_arguments(argv)
    amounts = SHORT if options.small else FULL
    bench = Bench(torch.device(options.device), options.precision, amounts)
    tables, failed = {}, 0
    for name in options.only:
        start = time.perf_counter()
        headers, (rows, problem) = SECTIONS[name][0], measure(name, bench)
        seconds = time.perf_counter() - start
        print(f"\n{name} ({options.precision}, {seconds:.0f} s)")
        print(tabulate(rows, headers, floatfmt=".3g", intfmt=","), flush=True)
        if problem:
            print(f"failed: {problem}")
            failed += 1
        tables[name] = {"headers": headers, "rows": rows, "seconds": seconds, "failed": problem}
        if options.output:  # after each section, so that a crash loses one only
            options.output.write_text(json.dumps(tables, indent=1, ensure_ascii=False))
    return failed


if __name__ == "__main__":
    sys.exit(min(1, main()))
