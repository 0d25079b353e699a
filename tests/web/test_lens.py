"""The lens in the application: what the model computed at every token of an answer, and another token from there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import pytest
from browsing import visit
from live import Live, serving
from test_screens import SLOW, WAYS, serious
from test_text import PAYLOADS, clean

import ponder
from ponder.serve import Served, Settings
from ponder.testing.scripted import Say, ScriptedSampler

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    said = Served(name="said", sampler=ScriptedSampler(lambda _, index: Say("Four.")))
    with (
        ponder.load("mini") as model,
        serving([Served(name="mini", sampler=model.sampler), said], Settings(drain=0.2)) as running,
    ):
        yield running


def answered(page: Any, live: Live, text: str, model: str = "mini", **settings: Any) -> str:
    """The id of a job that is done."""
    body = {"jobs": [{"input": text, "model": model, "needs": [], **settings}]}
    (job,) = httpx.post(f"{live.url}/jobs", json=body, timeout=SLOW).json()["data"]
    page.goto(f"/#/jobs/{job['id']}")
    page.locator(".jobpage:is([data-state=completed], [data-state=incomplete])").wait_for()
    return job["id"]


def test_an_answer_is_looked_into_by_keyboard_and_gone_on_from(page: Any, live: Live) -> None:
    answered(page, live, "What is 48 * 73?")
    page.get_by_role("link", name="Lens").press("Enter")
    page.locator("[data-ready=lens]").wait_for()
    assert page.get_by_role("heading", level=1).inner_text() == "What is 48 * 73?"
    panel = page.get_by_label("The chosen token")
    for number, measure in enumerate(("surprise", "entropy", "attention", "phase"), 1):
        page.keyboard.press(str(number))
        assert page.locator("[data-measure][aria-pressed=true]").inner_text() == measure
    pressed = page.locator(".heads [aria-pressed=true]")
    old = pressed.get_attribute("aria-label")
    page.keyboard.press("]")
    page.locator(f".heads [aria-pressed=true]:not([aria-label='{old}'])").wait_for()
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('.tokens') !== null"):
            break
    else:
        pytest.fail("Tab does not reach the text")
    page.keyboard.press("Home")
    panel.get_by_text(re.compile("^Token 0: ")).wait_for()
    assert panel.get_by_role("button", name="branch here").count() == 0, "the question is the asker's"
    for _ in range(30):
        page.keyboard.press("ArrowRight")
    panel.get_by_text(re.compile("^Token 30: ")).wait_for()
    for heading in ("What else could have come", "Where it looked", "What each layer would have said", "neighbours"):
        assert panel.get_by_role("heading", name=heading).count() == 1
    lens = page.url
    panel.get_by_role("button", name="branch here").first.press("Enter")
    page.locator(".jobpage:is([data-state=completed], [data-state=incomplete])").wait_for()
    assert page.url != lens
    assert page.locator(".question .tag").inner_text() == "from another token"
    page.keyboard.press("?")
    assert page.get_by_role("dialog", name="Keys").is_visible()


def test_a_model_that_is_elsewhere_has_none(page: Any, live: Live) -> None:
    id = answered(page, live, "two and two", "said")
    visit(page, f"/lens/{id}", "lens")
    assert "not available for 'said'" in page.get_by_role("alert").inner_text()
    page.keyboard.press("Escape")
    page.locator("[data-ready=job]").wait_for()


def test_text_stays_text(page: Any, live: Live) -> None:
    id = answered(page, live, "\n".join(PAYLOADS[:30]), max_output_tokens=20)
    visit(page, f"/lens/{id}", "lens")
    assert "<script>" in page.locator(".tokens").inner_text()
    for place in (5, 60, 200):
        page.locator(".token").nth(place).click()
        clean(page)


@pytest.mark.parametrize("way", WAYS)
def test_axe_finds_nothing_serious(chromium: Any, live: Live, way: str) -> None:
    with chromium.new_context(base_url=live.root, reduced_motion="reduce", **WAYS[way]) as context:
        context.set_default_timeout(30_000)
        page = context.new_page()
        id = answered(page, live, "What is 4 * 7?")
        visit(page, f"/lens/{id}", "lens")
        for measure in ("surprise", "phase"):
            page.locator(f"[data-measure={measure}]").click()
            serious(page, f"lens, {measure}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
