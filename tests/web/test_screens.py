"""Each screen, in light and dark, narrow and enlarged: axe finds nothing serious. What the first view costs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from browsing import READY, visit
from live import Live, serving

from ponder.serve import Served
from ponder.serve.http.auth import Keys
from ponder.serve.pages import built_files
from ponder.testing.scripted import ScriptedSampler

pytestmark = pytest.mark.browser

SLOW = 120  # seconds: nothing here depends on how fast the server is
AXE = Path(__file__).parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"
WAYS = {
    "light": {"viewport": {"width": 1280, "height": 860}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 860}, "color_scheme": "dark"},
    "narrow": {"viewport": {"width": 360, "height": 740}, "color_scheme": "light"},
    "at 200%": {"viewport": {"width": 640, "height": 430}, "color_scheme": "dark", "device_scale_factor": 2},
}
JOBS = [
    *({"input": f"quick {n}"} for n in range(6)),
    {"input": "tie of two", "strategy": "consensus(samples=2)"},
    {"input": "slow one", "labels": ["night"]},
]


@pytest.mark.parametrize("way", WAYS)
def test_axe_finds_nothing_serious(chromium: Any, live: Live, way: str) -> None:
    body = {"defaults": {"model": "said"}, "jobs": JOBS}
    jobs = {job["title"]: job["id"] for job in httpx.post(f"{live.url}/jobs", json=body, timeout=SLOW).json()["data"]}
    with chromium.new_context(base_url=live.root, reduced_motion="reduce", **WAYS[way]) as context:
        context.set_default_timeout(READY)
        page = context.new_page()
        visit(page)
        if way in ("light", "dark"):  # else one column is shown, without its head
            page.locator(".column.done header .number", has_text="6").wait_for()
        serious(page, "board")
        visit(page, "/?view=list")
        serious(page, "list")
        for title in ("quick 1", "tie of two", "slow one"):
            visit(page, f"/jobs/{jobs[title]}", "job")
            page.get_by_role("button", name="Timeline").click()
            serious(page, f"job {title}")
        visit(page, "/playground", "playground")
        serious(page, "playground")
        visit(page, f"/compare?ids={jobs['quick 1']},{jobs['quick 2']}", "compare")
        serious(page, "compare")
        page.get_by_role("button", name="Hand over").click()
        page.get_by_label("Questions").fill("question,id\na,1\nb\n")
        serious(page, "hand over")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def serious(page: Any, screen: str) -> None:
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    bad = [
        (each["id"], node["html"][:200], node["failureSummary"][:300])
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]
    assert not bad, (screen, bad)


def test_the_first_view_is_small() -> None:
    files = built_files()
    assert sum(len(files[name].packed) for name in ("index.html", "app.js", "app.css")) <= 60 * 1024


def test_thousands_of_jobs_draw_few_elements(page: Any, live: Live) -> None:
    body = {"defaults": {"model": "said"}, "jobs": [{"input": f"slow {n}"} for n in range(1000)]}
    for _ in range(2):
        assert httpx.post(f"{live.url}/jobs", json=body, timeout=SLOW).status_code == 200
    visit(page)
    page.locator(".totals", has_text="2,000 jobs").wait_for()
    assert page.evaluate("document.querySelectorAll('*').length") <= 1500


def test_a_key_is_asked_for_and_stays_in_this_tab(chromium: Any) -> None:
    keys = Keys({"a": hashlib.sha256(b"sk-ponder-of-a").digest()})
    sampler = ScriptedSampler(lambda _, index: "Four.")
    with (
        serving([Served(name="said", sampler=sampler)], keys=keys) as live,
        chromium.new_context(base_url=live.root) as context,
    ):
        context.set_default_timeout(READY)
        page = context.new_page()
        page.goto("/")
        page.locator("[data-ready=key]").wait_for()
        page.get_by_label("Key", exact=True).fill("sk-wrong")
        page.get_by_role("button", name="Continue").click()
        page.get_by_role("alert").get_by_text("does not know this key").wait_for()
        page.get_by_label("Key", exact=True).fill("sk-ponder-of-a")
        page.get_by_label("Keep it until").check()
        page.get_by_role("button", name="Continue").click()
        page.locator("[data-ready=board]").wait_for()
        page.reload()
        page.locator("[data-ready=board]").wait_for()
        assert page.evaluate("Object.keys(localStorage).length") == 0
        assert context.cookies() == []

        other = context.new_page()  # a link with the key: it is gone from the address at once
        other.goto("/#key=sk-ponder-of-a&to=/playground")
        other.locator("[data-ready=playground]").wait_for()
        assert other.evaluate("location.hash") == "#/playground"
        other.reload()
        other.locator("[data-ready=key]").wait_for()


def test_seven_tabs_share_one_stream(chromium: Any, live: Live) -> None:
    with chromium.new_context(base_url=live.root) as context:
        context.set_default_timeout(READY)
        tabs = [context.new_page() for _ in range(7)]
        for tab in tabs:
            visit(tab)
        httpx.post(f"{live.url}/jobs", json={"jobs": [{"input": "quick 1", "model": "said"}]}, timeout=SLOW)
        for tab in (tabs[0], tabs[3], tabs[6]):
            tab.locator(".card.done", has_text="quick 1").wait_for()


def test_offline_and_back(page: Any, live: Live) -> None:
    visit(page)
    page.locator(".live", has_text="Live").wait_for()
    page.context.set_offline(True)
    page.locator(".live", has_text="Offline").wait_for()
    httpx.post(f"{live.url}/jobs", json={"jobs": [{"input": "quick 1", "model": "said"}]}, timeout=SLOW)
    page.context.set_offline(False)
    page.locator(".live", has_text="Live").wait_for()
    page.locator(".card.done", has_text="quick 1").wait_for()
