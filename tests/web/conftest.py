"""What tests of the application share: a server whose model follows a script, and Debian's chromium."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from browsing import READY
from live import Live, serving

from ponder.dialogue.messages import Conversation
from ponder.serve import Served, Settings
from ponder.testing.scripted import Say, ScriptedSampler

CHROMIUM = shutil.which("chromium")
FLAGS = ["--disable-gpu", "--no-sandbox", "--disable-dev-shm-usage"]

_TIES = itertools.cycle(("41", "42"))


def script(conversation: Conversation, index: int) -> Say:
    """slow: a thought of a minute. tie: samples that disagree. echo: says what was asked, and thinks it too."""
    asked = conversation[-1].text
    if asked.startswith("slow"):
        return Say("Slowly.", reasoning=" ".join(f"step {n}," for n in range(600)), seconds=60)
    if asked.startswith("tie"):
        return Say(next(_TIES), reasoning="It could be either.")
    if asked.startswith("echo "):
        return Say(asked[5:], reasoning=asked[5:])
    return Say(f"Answer to {asked}", reasoning="First I look.\nThen I see.", seconds=0.1)


@pytest.fixture
def live() -> Iterator[Live]:
    with serving([Served(name="said", sampler=ScriptedSampler(script))], Settings(drain=0.2)) as running:
        yield running


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A browser of playwright."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs `make browser`")
    if CHROMIUM is None:
        pytest.skip("there is no chromium: `make browser`")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any, live: Live) -> Iterator[Any]:
    """A page that has not been anywhere. Errors of its scripts, and what its policy had to stop, fail the test."""
    context = chromium.new_context(base_url=live.root, viewport={"width": 1280, "height": 860})
    context.set_default_timeout(READY)
    opened = context.new_page()
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None)
    yield opened
    context.close()
    assert not wrong
