"""A new user hands over twenty jobs, watches, cancels, steers, answers and looks: by mouse, and by keyboard alone."""

from __future__ import annotations

import json
import re

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="needs `make browser`")
from browsing import READY, visit  # noqa: E402

expect, Page, Locator = sync_api.expect, sync_api.Page, sync_api.Locator
pytestmark = pytest.mark.browser

QUICK = [{"input": f"quick {n}", "custom_id": f"q{n}"} for n in range(17)]
JOBS = [
    *QUICK,
    {"input": "tie of two", "strategy": "consensus(samples=2)"},
    {"input": "slow one"},
    {"input": "slow two"},
]
TEXT = "\n".join(map(json.dumps, JOBS))


def column(page: Page, title: str) -> Locator:
    return page.get_by_role("listitem").filter(has=page.get_by_role("heading", name=title, exact=True, level=2))


def counted(page: Page, title: str, number: int) -> None:
    expect(column(page, title).locator("header .number")).to_have_text(str(number), timeout=READY)


def card(page: Page, question: str) -> Locator:
    return page.locator(".card").filter(has_text=question)


def test_by_mouse(page: Page) -> None:
    visit(page)
    page.get_by_role("button", name="Hand over work").click()
    page.get_by_label("Questions").fill(TEXT)
    expect(page.get_by_label("Read as")).to_contain_text("json lines")
    page.get_by_role("button", name="Hand over 20 jobs").click()
    page.get_by_role("dialog").wait_for(state="hidden")
    page.mouse.move(640, 70)
    counted(page, "Done", 17)
    counted(page, "Needs you", 1)
    counted(page, "Thinking", 2)

    card(page, "slow one").get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("slow one")
    page.get_by_role("button", name="Cancel").click()
    page.locator(".jobpage[data-state=cancelled]").wait_for()
    page.locator("a.back").click()
    counted(page, "Failed", 1)

    card(page, "slow two").get_by_role("link").click()
    page.get_by_label("Steer or follow up").fill("be brief")
    page.get_by_role("button", name="Steer now").click()
    page.locator(".jobpage[data-state=completed]").wait_for()
    expect(page.get_by_label("Answer", exact=True)).to_contain_text("Answer to be brief")
    page.locator("a.back").click()

    card(page, "tie of two").get_by_role("button", name="42").click()
    counted(page, "Needs you", 0)
    page.mouse.move(640, 70)
    counted(page, "Done", 19)

    card(page, "tie of two").get_by_role("link").click()
    expect(page.locator(".tree button.sample")).to_have_count(2)
    page.locator(".tree button.sample").first.click()
    expect(page.locator(".inside")).to_contain_text("It could be either.")
    page.get_by_role("button", name="Timeline").click()
    expect(page.locator(".lane .span")).to_have_count(2)

    page.reload()
    page.locator("[data-ready=job]").wait_for()
    expect(page.get_by_label("Answer", exact=True)).to_contain_text("42")
    page.locator("a.back").click()
    counted(page, "Done", 19)
    counted(page, "Failed", 1)


def test_by_keyboard_alone(page: Page) -> None:
    visit(page)
    press = page.keyboard.press
    press("n")
    expect(page.get_by_label("Questions")).to_be_focused()
    page.keyboard.insert_text(TEXT)
    expect(page.get_by_role("button", name="Hand over 20 jobs")).to_be_enabled()
    press("Control+Enter")
    page.get_by_role("dialog").wait_for(state="hidden")
    counted(page, "Needs you", 1)
    counted(page, "Thinking", 2)

    press("j")
    expect(page.get_by_role("link", name="slow one")).to_be_focused()
    press("c")
    counted(page, "Failed", 1)

    press("j")
    expect(page.get_by_role("link", name="slow two")).to_be_focused()
    press("s")
    expect(page.get_by_label("Steer or follow up")).to_be_focused()
    page.keyboard.type("be brief")
    press("Control+Enter")
    page.locator(".jobpage[data-state=completed]").wait_for()
    press("Escape")  # out of the field
    press("Escape")
    page.locator("[data-ready=board]").wait_for()

    press(".")
    page.locator(".jobpage[data-state=needs_input]").wait_for()
    for _ in range(40):
        if page.evaluate("document.activeElement.textContent.trim()") == "42":
            break
        press("Tab")
    press("Enter")
    page.locator(".jobpage[data-state=completed]").wait_for()
    expect(page.get_by_label("Answer", exact=True)).to_contain_text("42")
    press("t")
    expect(page.locator("pre.thought")).to_be_visible()

    press("Escape")
    page.locator("[data-ready=board]").wait_for()
    press("/")
    page.keyboard.type("quick 16")
    expect(page.locator(".card")).to_have_count(1)
    press("Escape")
    press("j")
    press("x")
    expect(page.get_by_role("toolbar", name="Selected jobs")).to_contain_text("1 selected")
    press("r")
    page.get_by_role("button", name="Undo").press("Enter")
    expect(page.get_by_role("button", name="Undo")).to_have_count(0)
    press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()


def test_keys_can_be_switched_off(page: Page) -> None:
    visit(page)
    page.get_by_role("button", name="Keys and help").click()
    page.get_by_label("Single keys act on this page").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("n")
    expect(page.get_by_role("dialog", name="Hand over work")).to_have_count(0)


def test_bad_lines_are_named_and_the_good_ones_go(page: Page) -> None:
    visit(page)
    page.keyboard.press("n")
    page.get_by_label("Questions").fill(
        '{"input": "quick 1"}\n{"input": 7}\n{"input": "quick 2", "strategy": "nothing"}'
    )
    expect(page.get_by_role("alert")).to_contain_text("Line 2 has no question")
    page.get_by_role("button", name="Hand over 2 jobs").click()
    expect(page.get_by_role("alert").filter(has_text=re.compile("^Line 3"))).to_be_visible()
    page.get_by_role("button", name="Hand over the others").click()
    expect(page.get_by_role("alert").filter(has_text="refused by the server")).to_contain_text("Line 3")
    page.keyboard.press("Escape")
    counted(page, "Done", 1)


def test_an_address_fills_in_and_never_acts(page: Page) -> None:
    visit(page, "/playground?q=quick", "playground")
    expect(page.get_by_label("Question")).to_have_value("quick")
    visit(page)
    expect(page.get_by_role("heading", name="Hand over your first questions")).to_be_visible()
