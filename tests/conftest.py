"""What holds for every test: those that need a GPU are skipped where there is none."""

from collections.abc import Iterator

import pytest


@pytest.fixture(params=["torch", "fused", pytest.param("cuda", marks=pytest.mark.cuda)])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Runs a test of the engine on every kernel: the module's `tiny_model` makes what the kernel covers, and engines
    are deterministic where bfloat16 would let neighbours tip a token."""
    import torch

    from ponder.engine import Engine

    if request.param != "torch":
        make = request.module.tiny_model
        place = {"dtype": torch.bfloat16} if request.param == "fused" else {"device": "cuda"}
        monkeypatch.setattr(request.module, "tiny_model", lambda *a, **k: make(*a, **k).to(**place))
    if request.param == "fused":
        found = Engine(request.module.tiny_model(), request.module.TOKENS).kernel
        if found.kernel == "torch":
            pytest.skip(found.reason)
        monkeypatch.setitem(Engine.__init__.__kwdefaults__, "deterministic", True)
    yield request.param


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    needing_gpu = [item for item in items if item.get_closest_marker("cuda")]
    if not needing_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in needing_gpu:
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))
