"""The pictures of docs/web.md: the bundled model works on problems of its families, and chromium draws the pages.

make pictures    writes docs/pictures/web-*.png (needs `make browser`)
"""

from __future__ import annotations

import itertools
import json
import random
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright
from try_release import answers, free_port

from ponder.tasks.families import FAMILIES

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
SEED = 7
LONGEST = 140  # characters of a problem: longer ones say little on a card
STRATEGIES = (None, "consensus(samples=5)", "consensus(samples=2)")
MODEL = "mini"
SCREENS = (("light", "board"), ("dark", "board"), ("light", "job"), ("dark", "job"))


def problems(number: int) -> list[str]:
    """Problems of all families in turn, always the same."""
    rng = random.Random(SEED)
    found: list[str] = []
    for family in itertools.cycle(FAMILIES.values()):
        text = family.sample(rng, 0.4).question
        if len(text) <= LONGEST:
            found.append(text)
        if len(found) == number:
            return found
    raise AssertionError("there are families")


def call(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def hand_over(url: str) -> None:
    """Sixty jobs, one of them with a vote on a product that is easy to follow."""
    texts = problems(59)
    jobs: list[dict[str, Any]] = [{"input": "What is 4821 * 7093?", "strategy": "consensus(samples=5)"}]
    for text, strategy in zip(texts, itertools.cycle(STRATEGIES), strict=False):
        jobs.append({"input": text} if strategy is None else {"input": text, "strategy": strategy})
    for batch, part in (("tonight", jobs[:40]), ("checks", jobs[40:])):
        call(f"{url}/v1/jobs", {"defaults": {"model": MODEL}, "jobs": part, "batch": batch})


def draw(page: Page, url: str, screen: str) -> None:
    if screen == "board":
        page.goto(f"{url}/#/")
    else:
        found = call(f"{url}/v1/jobs?state=completed&q=4821")["data"][0]
        page.goto(f"{url}/#/jobs/{found['id']}")
    page.locator("[data-ready]").wait_for()
    page.wait_for_timeout(1500)


def main() -> None:
    port = free_port()
    url = f"http://localhost:{port}"
    command = [sys.executable, "-m", "ponder.cli", "serve", MODEL, "--port", str(port)]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        if not answers(f"{url}/health", server):
            sys.exit("the server did not start")
        hand_over(url)
        states = {}
        while states.get("completed", 0) < 20 or not call(f"{url}/v1/jobs?state=completed&q=4821")["data"]:
            time.sleep(1)
            states = call(f"{url}/v1/jobs/counts")["states"]
            if not states["queued"] + states["in_progress"]:
                break
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--disable-gpu", "--no-sandbox"]
            )
            for colours, screen in SCREENS:
                size = {"width": 1440, "height": 900}
                page = browser.new_page(viewport=size, color_scheme="dark" if colours == "dark" else "light")
                draw(page, url, screen)
                page.screenshot(path=PICTURES / f"web-{screen}-{colours}.png")
                page.close()
            browser.close()
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
