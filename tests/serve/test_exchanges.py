"""What the server says, byte for byte where it streams, is what was recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from exchanges import CHAT, EXCHANGES, SETTINGS, TEXT, exchange, models
from live import Live, serving
from pydantic import TypeAdapter

from ponder.serve.chat.wire import ChatCompletion
from ponder.serve.completions.wire import TextCompletion

DOCUMENTED = {CHAT: ChatCompletion, TEXT: TextCompletion}
FOLDER = Path(__file__).parents[1] / "golden" / "serve"


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with serving(models(), SETTINGS) as running:
        yield running


@pytest.mark.parametrize("name", EXCHANGES)
def test_an_exchange_is_as_recorded(live: Live, name: str) -> None:
    assert exchange(live, name) == json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", [name for name, (path, _) in EXCHANGES.items() if path in DOCUMENTED])
def test_a_whole_answer_is_as_the_document_says(name: str) -> None:
    told = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    if "response" in told and told["status"] == 200:
        TypeAdapter(DOCUMENTED[told["path"]]).validate_python(told["response"])


def test_nothing_recorded_is_forgotten() -> None:
    assert {file.stem for file in FOLDER.glob("*.json")} == set(EXCHANGES)
