"""The page of `ponder inspect` in a browser: opened from disk, nothing fetched, by keyboard, by axe's rules, and with a
thought of 30,000 tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from browsing import READY
from test_screens import WAYS, serious

from ponder.evaluate.audit import AuditReport, ThinkingAudit
from ponder.evaluate.audit.effects import CutCurve
from ponder.evaluate.correction import Rate
from ponder.lens.audit_page import audit_page
from ponder.lens.draw import LARGEST, draw
from ponder.testing.tiny import ByteTokenizer, tiny_model
from ponder.types import Origin, Phase, Segment

pytestmark = pytest.mark.browser

TOKENIZER = ByteTokenizer()
LETTERS = TOKENIZER.encode("abcdefghijklmnopqrstuvwxyz     \n")


def folded(contexts: int, length: int) -> list[Segment]:
    """A thought of that many contexts of that many tokens, the last 20 of which are the answer."""
    rng, answer = Random(0), 20
    return [
        Segment(
            prompt_ids=tuple(TOKENIZER.encode("How many?" + ("[state]" if number else ""))),
            ids=tuple(rng.choices(LETTERS, k=length)),
            logprobs=(-1.0,) * length,
            phases=(Phase.THINK,) * (length - answer * last) + (Phase.ANSWER,) * (answer * last),
            origins=(Origin.SAMPLED,) * length,
            weights_version=0,
        )
        for number in range(contexts)
        for last in [number == contexts - 1]
    ]


def write(folder: Path, segments: list[Segment]) -> Path:
    model = tiny_model(vocab_size=TOKENIZER.vocab_size, max_positions=1200)
    file = folder / "page.html"
    command = "ponder inspect 'How many?' --branch {place}={id}"
    text = draw(model, TOKENIZER, segments, title="How many?", name="tiny", branch=command)
    file.write_text(text, encoding="utf-8")
    return file


def audit(task: str, *solved: int) -> ThinkingAudit:
    """Of four problems, that many solved at each share."""
    counted = tuple(tuple(each < count for each in range(4)) for count in solved)
    cut = CutCurve(task=task, shares=(0, 0.5, 1), solved=counted, whole=(True,) * 4)
    return ThinkingAudit(task=task, n=4, tokens=9.0, cut=cut, changes=(), contradictions=Rate(0, 4))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("inspect"), folded(2, 80))


@pytest.fixture
def opened(chromium: Any) -> Iterator[Any]:
    """Opens a file. Whatever else is asked for, and what its policy had to stop, fails the test."""
    wrong: list[str] = []
    contexts: list[Any] = []

    def open_file(file: Path, **way: Any) -> Any:
        context = chromium.new_context(**way)
        contexts.append(context)
        context.set_default_timeout(READY)
        page = context.new_page()
        page.on("request", lambda asked: wrong.append(asked.url) if asked.url != file.as_uri() else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.goto(file.as_uri())
        page.locator("body[data-ready]").wait_for()
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert not wrong


@pytest.mark.parametrize("way", WAYS)
def test_axe_finds_nothing_serious(opened: Any, file: Path, way: str) -> None:
    page = opened(file, reduced_motion="reduce", **WAYS[way])
    for measure in ("surprise", "attention", "phase"):
        page.locator(f"[data-measure={measure}]").click()
        serious(page, f"inspect, {measure}")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("way", WAYS)
def test_axe_finds_nothing_serious_on_the_page_of_an_audit(chromium: Any, tmp_path: Path, way: str) -> None:
    file = tmp_path / "audit.html"
    report = AuditReport(model="tiny", n=4, thinking=(audit("sums", 0, 2, 4), audit("words", 1, 1, 1)))
    file.write_text(audit_page(report), encoding="utf-8")
    with chromium.new_context(**WAYS[way]) as context:
        page = context.new_page()
        page.goto(file.as_uri())
        serious(page, "audit")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.locator("svg").bounding_box()["height"] > 80


def test_everything_can_be_done_by_keyboard(opened: Any, file: Path) -> None:
    page = opened(file)
    for _ in range(60):  # by Tab alone to a token of the text
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('.tokens') !== null"):
            break
    else:
        pytest.fail("Tab does not reach the text")
    panel = page.get_by_label("The chosen token")
    for key, token in (("End", 88), ("ArrowLeft", 87), ("Home", 0), ("ArrowRight", 1), ("ArrowLeft", 0)):
        page.keyboard.press(key)
        panel.get_by_text(re.compile(f"^Token {token}: ")).wait_for()
    for number, measure in enumerate(("surprise", "entropy", "attention", "phase"), 1):
        page.keyboard.press(str(number))
        assert page.locator("[data-measure][aria-pressed=true]").inner_text() == measure
    pressed = page.locator(".heads [aria-pressed=true]")
    pressed.first.wait_for()
    old = pressed.get_attribute("aria-label")
    page.keyboard.press("]" if old.startswith("layer 1") else "[")
    page.locator(f".heads [aria-pressed=true]:not([aria-label='{old}'])").wait_for()
    page.keyboard.press("Control+1")
    assert page.locator("[data-measure][aria-pressed=true]").inner_text() == "phase", (
        "a browser's own keys are left alone"
    )


def test_a_thought_of_30000_tokens_opens(opened: Any, tmp_path: Path) -> None:
    file = write(tmp_path, folded(30, 1000))
    assert file.stat().st_size <= LARGEST
    page = opened(file)
    assert "30" in page.locator(".head").inner_text()
    assert page.locator(".head").get_by_text("tokens", exact=False).first.is_visible()
    assert "attention" in page.locator(".head").inner_text().lower(), "what was left out is said"
    panel = page.get_by_label("The chosen token")
    before = panel.inner_text()
    page.locator(".tokens").first.locator("span").nth(3).click()
    assert panel.inner_text() != before
