"""The board in a browser: what it costs to look at many jobs while some of them run.

    python bench/board.py                              # 10,000 jobs, 200 live, 5 minutes (needs `make browser`)
    python bench/board.py --jobs 2000 --live 50 --minutes 0.5

The server runs in a process beside the browser. CPU is that of the page's main thread, without what other processes and
the compositor take: script, style, layout and the recording of what is painted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import shutil
import socket
import sys
import tempfile
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from common import environment, save, spread, table
from jobs import AT_ONCE, made

from ponder.serve.http.auth import LOCAL
from ponder.serve.store import Store
from ponder.serve.store.jobs import insert_jobs

SCREEN = {"width": 1440, "height": 900}
LOADS = 5
FRAMES = 30  # of one scroll
SCROLLS = 10
TALL = 14_000  # pixels of a window that draws more than a hundred cards of one column
UPDATES = 20.0  # seconds over which they are watched
LOOK = 10.0  # seconds between two looks at the heap
SCROLL = """frames => new Promise(done => {
  const scroller = document.querySelector('.scroller[data-column=done]');
  let left = frames;
  const step = () => {
    scroller.scrollTop += 120;
    if (left--) requestAnimationFrame(step);
    else done(scroller.scrollTop);
  };
  requestAnimationFrame(step);
})"""
WATCH = """() => {
  window.updates = 0;
  let drawn = false;
  const scroller = document.querySelector('.scroller[data-column=thinking]');
  new MutationObserver(() => {
    if (!drawn) requestAnimationFrame(() => { drawn = false; window.updates++; });
    drawn = true;
  }).observe(scroller, { subtree: true, childList: true, characterData: true });
}"""


def serve(port: int, store: str, seconds: float) -> None:
    """A server whose jobs think all the time."""
    from ponder.serve import Served, Settings, create_app
    from ponder.serve.http.server import server
    from ponder.testing.scripted import Say, ScriptedSampler

    thought = " ".join(f"step {number}," for number in range(int(seconds)))
    sampler = ScriptedSampler(lambda conversation, index: Say("Done.", reasoning=thought, seconds=seconds))
    settings = Settings(port=port, store=store, drain=0)
    server(create_app([Served(name="said", sampler=sampler)], settings)).run()


def fill(path: Path, number: int) -> None:
    async def steps() -> None:
        store, rng = Store(path), Random(0)
        try:
            for begin in range(0, number, AT_ONCE):
                jobs = [replace(made(each, rng), owner=LOCAL) for each in range(begin, min(number, begin + AT_ONCE))]
                await store.write(lambda c, jobs=jobs: insert_jobs(c, jobs, None))  # type: ignore[misc]
        finally:
            store.close()

    asyncio.run(steps())


class Watched:
    """A page, and the counters of its main thread."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self._tools = page.context.new_cdp_session(page)
        self._tools.send("Performance.enable", {"timeDomain": "threadTicks"})
        self._tools.send("HeapProfiler.enable")

    def counters(self) -> dict[str, float]:
        return {each["name"]: each["value"] for each in self._tools.send("Performance.getMetrics")["metrics"]}

    def cpu(self) -> float:
        """Milliseconds that its tasks have taken."""
        return 1000 * self.counters()["TaskDuration"]

    def heap(self) -> float:
        """MB that are in use after a collection."""
        self._tools.send("HeapProfiler.collectGarbage")
        return self.counters()["JSHeapUsedSize"] / 1e6


def open_board(browser: Any, url: str, live: int, **size: int) -> Watched:
    page = browser.new_page(viewport={**SCREEN, **size})
    page.goto(url)
    page.locator("[data-ready=board]").wait_for()
    if live:
        page.locator(".column.thinking header .number", has_text=f"{live:,}").wait_for()
    return Watched(page)


def first_paints(browser: Any, url: str) -> list[float]:
    """Milliseconds from the navigation on."""
    found = []
    for _ in range(LOADS):
        watched = open_board(browser, url, 0)
        paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        found.append(float(watched.page.evaluate(paint)))
        watched.page.close()
    return found


def scrolled(watched: Watched) -> list[float]:
    """CPU of a frame, the mean of each scroll."""
    found = []
    for _ in range(SCROLLS):
        before = watched.cpu()
        watched.page.evaluate(SCROLL, FRAMES)
        found.append((watched.cpu() - before) / FRAMES)
    return found


def updated(watched: Watched) -> tuple[int, list[float]]:
    """How many cards are drawn, and the CPU of an update of them, the mean of each second or two."""
    watched.page.evaluate(WATCH)
    found = []
    end = time.monotonic() + UPDATES
    while time.monotonic() < end:
        before, count = watched.cpu(), watched.page.evaluate("window.updates")
        watched.page.wait_for_timeout(2000)
        number = watched.page.evaluate("window.updates") - count
        if number:
            found.append((watched.cpu() - before) / number)
    return watched.page.locator(".column.thinking .card").count(), found


def heaps(watched: Watched, minutes: float) -> list[tuple[float, float]]:
    """(minutes, MB) while the jobs run and the columns are scrolled."""
    found, began = [(0.0, watched.heap())], time.monotonic()
    while (passed := (time.monotonic() - began) / 60) < minutes:
        watched.page.evaluate(SCROLL, FRAMES)
        watched.page.wait_for_timeout(1000 * min(LOOK, 60 * (minutes - passed)))
        found.append(((time.monotonic() - began) / 60, watched.heap()))
    return found


def slope(points: list[tuple[float, float]]) -> tuple[float, float]:
    """(MB a minute by least squares, half of its 95% interval)."""
    n = len(points)
    x, y = (sum(each) / n for each in zip(*points, strict=True))
    square = sum((a - x) ** 2 for a, _ in points)
    rise = sum((a - x) * (b - y) for a, b in points) / square
    rest = sum((b - y - rise * (a - x)) ** 2 for a, b in points)
    return rise, 1.96 * (rest / max(1, n - 2) / square) ** 0.5


def measure(url: str, args: argparse.Namespace) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--disable-gpu", "--no-sandbox", "--disable-dev-shm-usage"]
        )
        paints = first_paints(browser, url)
        watched = open_board(browser, url, args.live)
        scrolls = scrolled(watched)
        nodes = watched.page.evaluate("document.querySelectorAll('*').length")
        kept = heaps(watched, args.minutes)
        watched.page.close()
        drawn, updates = updated(open_board(browser, url, args.live, height=TALL))
        browser.close()
    rise, margin = slope(kept)
    rows = [
        ("first paint, ms of the clock", spread(paints), "300 on an idle machine"),
        ("CPU of a scrolled frame, ms", spread(scrolls, 1), "10"),
        (f"CPU of an update of {drawn} drawn cards, ms", spread(updates, 1), "30 for 100"),
        ("elements", f"{nodes:,}", "1,500"),
        ("heap, MB, first and last", f"{kept[0][1]:.1f}, {kept[-1][1]:.1f}", "60"),
        ("growth of the heap, MB a minute", f"{rise:+.2f} ({rise - margin:+.2f} to {rise + margin:+.2f})", "0"),
    ]
    title = f"The board with {args.jobs:,} jobs, {args.live} of them live, {args.minutes:g} minutes"
    figures = {"paints": paints, "scrolls": scrolls, "updates": updates, "drawn": drawn, "nodes": nodes, "heap": kept}
    result = {"environment": environment(), **vars(args), **figures}
    save("board", result, f"{title}.\n\n{table(('what', 'median (range)', 'aim, at most'), rows)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=10_000, help="in all")
    parser.add_argument("--live", type=int, default=200, help="of them, that think (at most 256 run at once)")
    parser.add_argument("--minutes", type=float, default=5.0, help="over which the heap is watched")
    args = parser.parse_args()
    if not 1 <= args.live <= min(256, args.jobs):
        parser.error(f"--live must be from 1 to 256 and at most --jobs (got {args.live})")
    if shutil.which("chromium") is None:
        print("there is no chromium: left out (`make browser`)")
        return
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        store = Path(folder) / "store.db"
        fill(store, args.jobs - args.live)
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        seconds = 60 * args.minutes + 3600
        process = multiprocessing.get_context("spawn").Process(target=serve, args=(port, str(store), seconds))
        process.start()
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(f"{url}/health", process)
            body = {"defaults": {"model": "said"}, "jobs": [{"input": f"live {n}"} for n in range(args.live)]}
            request = urllib.request.Request(
                f"{url}/v1/jobs", json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            urllib.request.urlopen(request, timeout=120).close()
            measure(url, args)
        finally:
            process.kill()
            process.join()


def wait_for(url: str, process: Any) -> None:
    while process.is_alive():
        try:
            urllib.request.urlopen(url, timeout=10).close()
            return
        except OSError:
            time.sleep(0.1)
    sys.exit("the server did not start")


if __name__ == "__main__":
    main()
