"""Fixtures of whole runs."""

from collections.abc import Iterator

import pytest
import torch

from tests.support.recorded_captions import install_fake_java


@pytest.fixture(scope="module")
def plain_machine(tmp_path_factory) -> Iterator[None]:
    """One CPU thread, no GPU, as the ranks have it; no Java, which takes long to start."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        install_fake_java(tmp_path_factory.mktemp("java") / "bin", patch)
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield
    torch.set_num_threads(threads)
