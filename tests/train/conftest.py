"""Fixtures of the tests of stages that learn from rewards; what they run is in even.py."""

from pathlib import Path

import pytest
from even import Even

from ponder.model.checkpoint import write_model
from ponder.testing.tiny import ByteTokenizer, tiny_model
from ponder.train.policy import rollout, stage


@pytest.fixture
def start(tmp_path: Path) -> Path:
    folder = tmp_path / "start"
    folder.mkdir()
    write_model(tiny_model(), folder)
    ByteTokenizer().save(folder)
    return folder


@pytest.fixture
def even(monkeypatch: pytest.MonkeyPatch) -> Even:
    task = Even()
    for module in (stage, rollout):
        monkeypatch.setattr(module, "load_task", lambda spec: task)
    return task
