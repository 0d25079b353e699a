"""What holds for every test: those that need a GPU are skipped where there is none. How engines are watched."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    needing_gpu = [item for item in items if item.get_closest_marker("cuda")]
    if not needing_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in needing_gpu:
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.fixture
def watch_logits(monkeypatch):
    """watch_logits(see): from now on each step of every engine calls `see(sequences that are ready, their logits_SV)`.
    What is picked from these logits is picked by the torch rules."""
    from ponder.engine.kernel import FusedRunner
    from ponder.engine.runner import Runner
    from ponder.engine.sampling import pick

    def watch(see):
        def run(runner, step):
            logits_SV = runner.logits(step)
            see(step.ready, logits_SV)
            pick(logits_SV, [sequence.pick for sequence in step.ready])

        for kind in (Runner, FusedRunner):
            monkeypatch.setattr(kind, "run", run)

    return watch
