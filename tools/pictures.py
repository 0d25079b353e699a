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
import tempfile
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
SCREENS = [(colours, screen) for screen in ("board", "job", "lens", "rank", "runs") for colours in ("light", "dark")]
JOBS = 40
DONE = 15  # of them, before a picture is drawn
WAITING = 2  # that wait for a person by then
RANKING = "products"
TRAINED = ("--set", "sft.tokens=120_000", "--set", "grpo.steps=12")  # a run long enough to have curves


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
    """Jobs, one of them with a vote on a product that is easy to follow, and some whose budget will not do."""
    texts = problems(JOBS - 1)
    jobs: list[dict[str, Any]] = [{"input": "What is 4821 * 7093?", "strategy": "consensus(samples=5)"}]
    for number, (text, strategy) in enumerate(zip(texts, itertools.cycle(STRATEGIES), strict=False)):
        jobs.append({"input": text} if strategy is None else {"input": text, "strategy": strategy})
        if number % 9 == 0:
            jobs[-1] = {"input": text, "budget": 40}
    for batch, part in (("tonight", jobs[: JOBS * 2 // 3]), ("checks", jobs[JOBS * 2 // 3 :])):
        call(f"{url}/v1/jobs", {"defaults": {"model": MODEL}, "jobs": part, "batch": batch})


def add_ranking(url: str) -> None:
    """What the model says to a few products, at once and after thinking."""
    sets = []
    for question in ("What is 4821 * 7093?", "What is 88 * 47?", "What is 613 * 29?"):
        answers = []
        for effort in ("none", "high"):
            asked = {
                "model": MODEL,
                "messages": [{"role": "user", "content": question}],
                "reasoning_effort": effort,
            }
            said = call(f"{url}/v1/chat/completions", asked)["choices"][0]["message"]["content"]
            answers.append({"text": said, "made": f"{MODEL}, {effort}"})
        if answers[0]["text"] != answers[1]["text"]:
            sets.append({"prompt": question, "answers": answers})
    call(f"{url}/v1/rankings/{RANKING}/sets", {"sets": sets})


def draw(page: Page, url: str, screen: str) -> None:
    found = call(f"{url}/v1/jobs?state=completed&q=4821")["data"][0]["id"]
    places = {"board": "/", "job": f"/jobs/{found}", "lens": f"/lens/{found}", "rank": f"/rank/{RANKING}"}
    page.goto(f"{url}/#{places.get(screen, f'/{screen}')}")
    page.locator(f"[data-ready={screen}]").wait_for()
    if screen == "job":
        page.locator(".tree").wait_for()
    if screen == "lens":
        page.keyboard.press("3")
        page.locator(".token.tinted").first.wait_for()
    if screen == "rank":
        page.keyboard.type("a")
    page.wait_for_timeout(1500)


def train(folder: Path) -> None:
    recipe = ROOT / "recipes" / "smoke" / "all.toml"
    command = [sys.executable, "-m", "ponder.cli", "train", str(recipe), "--set", f"run.folder={folder}", *TRAINED]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        train(Path(folder) / "runs" / "smoke")
        draw_all(Path(folder))


def draw_all(folder: Path) -> None:
    port = free_port()
    url = f"http://localhost:{port}"
    command = [sys.executable, "-m", "ponder.cli", "serve", MODEL, "--port", str(port)]
    command += ["--runs", str(folder / "runs"), "--rankings", str(folder / "rankings")]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        if not answers(f"{url}/health", server):
            sys.exit("the server did not start")
        add_ranking(url)
        hand_over(url)
        while True:
            time.sleep(1)
            states = call(f"{url}/v1/jobs/counts")["states"]
            product = call(f"{url}/v1/jobs?state=completed&q=4821")["data"]
            if product and states["completed"] >= DONE and states["needs_input"] >= WAITING:
                break
            if not states["queued"] + states["in_progress"]:
                sys.exit(f"the jobs ended otherwise than the pictures show them: {states}")
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
