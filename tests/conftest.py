"""What holds for every test: torch computes on one thread, and a test that needs a GPU runs only where there is one."""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Iterator
from functools import cache

import pytest

os.environ["OMP_NUM_THREADS"] = "1"  # torch reads it when it is loaded, here and in every process that a test starts

# Every client of HTTP reads all certificates of the world as it is made, which takes longer than most tests; none here
# speaks TLS.
ssl.create_default_context = cache(ssl.create_default_context)


@pytest.fixture(autouse=True)
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """Torch computes on one thread, so that a result does not depend on the machine and tests can run side by side.
    A test marked `threads(n)` computes on n threads; the next test is on one thread again."""
    if marked := request.node.get_closest_marker("threads"):
        import torch

        torch.set_num_threads(*marked.args)
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Files whose tests take long begin first, so that no process ends long after the others.
    items.sort(key=lambda item: item.path.parent.name not in ("smoke", "examples", "train"))
    needing_gpu = [item for item in items if item.get_closest_marker("cuda")]
    if not needing_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in needing_gpu:
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))
