"""What tests of a server share. Each module starts its own server, in a fixture `live`."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
from live import Live


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[openai.OpenAI]:
    """The official client of the module's server."""
    with live.client() as client:
        yield client
