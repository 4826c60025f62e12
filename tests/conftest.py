"""Fixtures: where the recorded world lies, what starts several ranks, on what device models run."""

import importlib.util
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

# Tests start many processes, at times several at once: more threads would only take turns.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

from tests.support import RECORDED
from utils.runtime import set_deterministic

# What tests marked ``device`` compute on.
TEST_DEVICE = os.environ.get("HERO_TEST_DEVICE", "cpu")
GOLDEN = Path(os.environ.get("HERO_GOLDEN", RECORDED / "golden"))
GOLDEN_VALUE = Path(os.environ.get("HERO_GOLDEN_VALUE", RECORDED / "golden_value"))
LAUNCHERS = ("torch", "horovod")


def pytest_configure(config: pytest.Config) -> None:
    """A GPU that was asked for is there, and computes what single precision says.

    Commands that tests start can be interrupted, also where a shell has started the tests as a
    background job, which ignores Ctrl-C and lets its children inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if TEST_DEVICE.startswith("cuda"):
        if not _has_cuda():
            pytest.exit(f"HERO_TEST_DEVICE={TEST_DEVICE}: PyTorch finds no CUDA device here", 2)
        import torch

        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def _has_cuda() -> bool:
    import torch

    import utils.runtime  # noqa: F401 (before PyTorch is loaded)

    return torch.cuda.is_available()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort files with slow tests to the front; skip what needs a GPU where there is none.

    Several processes take one file after the other (``--dist loadfile``): a long one at the end
    would leave the others without work.
    """
    count = Counter(item.path for item in items)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow, -count[item.path]))
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and not _has_cuda():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(autouse=True)
def fixed_order(request: pytest.FixtureRequest) -> Iterator[None]:
    """On a GPU, sums of tests marked ``device`` have a fixed order: equal work, equal bits."""
    wanted = TEST_DEVICE.startswith("cuda") and request.node.get_closest_marker("device")
    if wanted:
        set_deterministic(True)
    yield
    if wanted:
        set_deterministic(False)


@pytest.fixture(scope="session", params=LAUNCHERS)
def backend(request) -> str:
    """What starts several ranks, one after the other."""
    if request.param == "horovod" and importlib.util.find_spec("horovod") is None:
        pytest.skip("Horovod is not installed: scripts/install_horovod.sh")
    return request.param


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of a recorded world (``$HERO_GOLDEN``, or the one kept with the tests)."""
    return GOLDEN


@pytest.fixture(scope="session")
def world(golden: Path) -> Path:
    """Raw inputs of the recorded world and the databases made from them."""
    return golden / "world"


@pytest.fixture(scope="session")
def expected(golden: Path) -> Path:
    """Recorded outputs."""
    return golden / "expected"


@pytest.fixture(scope="session")
def recorded(expected: Path) -> dict[str, np.ndarray]:
    """All recorded arrays, by key."""
    with np.load(expected / "golden.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def golden_value() -> Path:
    """The folder of a recorded world of VALUE (``$HERO_GOLDEN_VALUE``, or the one kept here)."""
    return GOLDEN_VALUE


@pytest.fixture(scope="session")
def value_recorded(golden_value: Path) -> dict[str, np.ndarray]:
    """All recorded arrays of VALUE's world, by key."""
    with np.load(golden_value / "expected" / "golden.npz") as arrays:
        return dict(arrays)


@pytest.fixture
def fake_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ``java`` in front of all others that gives every caption the same score at once."""
    from tests.support.recorded_captions import install_fake_java

    install_fake_java(tmp_path / "bin", monkeypatch)
    return tmp_path / "bin" / "java"


@pytest.fixture
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Extractors whose networks are small."""
    from model.extractors.build import EXTRACTORS
    from tests.support.small_extractors import use_small_networks

    use_small_networks(lambda name, network: monkeypatch.setitem(EXTRACTORS, name, network))


@pytest.fixture
def tvr_options(world: Path, expected: Path, tmp_path: Path) -> dict:
    """Options of a short TVR training on the recorded world."""
    return short_tvr_run(world, expected, tmp_path / "run")


def short_tvr_run(world: Path, expected: Path, run: Path) -> dict:
    """Options of a short TVR training on the recorded world, whose folder is ``run``."""
    databases = world / "txt_db"
    return {
        "task": "tvr",
        "train_query_txt_db": str(databases / "tvr_train.db"),
        "val_query_txt_db": str(databases / "tvr_val.db"),
        "sub_txt_db": str(databases / "tv_subtitles.db"),
        "vfeat_db": str(world / "video_db" / "tv"),
        "model_config": str(expected / "model_finetune.json"),
        "checkpoint": str(expected / "pretrained.pt"),
        "output_dir": str(run),
        "train_batch_size": 3,
        "gradient_accumulation_steps": 2,
        "num_train_steps": 9,
        "valid_steps": 4,
        "restore_steps": 3,
        "n_workers": 1,
        "drop_svmr_prob": 0.5,
        "max_vcmr_video": 4,
    }
