"""Answers are ranked by mouse and by keyboard alone, a run is watched while it grows and is resumed, and a question is
asked in the playground. Text that would run as markup stays text, and axe finds nothing serious."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from browsing import READY, visit
from live import Live, serving
from test_screens import WAYS, serious
from test_text import PAYLOADS, clean

from ponder.dialogue.messages import Conversation
from ponder.serve import Served, Settings
from ponder.testing.scripted import Say, ScriptedSampler
from ponder.train.data.preferences import read_rankings
from ponder.train.loop.display import MetricsLog

pytestmark = pytest.mark.browser

MARKUP = '<img src=x onerror="window.X=1"><script>window.X=1</script>'
SAMPLE = {
    "task": "gcd",
    "level": 0.5,
    "question": f"gcd of 4 and 6? {MARKUP}",
    "gold": "2",
    "thinking": f"4 = 2 * 2 {MARKUP}",
    "answer": f"2 {MARKUP}",
    "reward": 1.0,
    "score": 0.0,
    "status": "graded",
    "why": MARKUP,
    "ended": "end",
    "tokens": 9,
}


def script(conversation: Conversation, index: int) -> Say:
    asked = conversation[-1].text
    if asked.startswith("slow"):
        return Say("Slowly.", reasoning=" ".join(f"step {n}," for n in range(600)), seconds=60)
    return Say(f"Answer to {asked}", reasoning="First I look.")


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    run = tmp_path / "runs" / "one"
    (run / "grpo" / "samples").mkdir(parents=True)
    (run / "recipe.toml").write_text('[run]\nfolder = "x"\nstages = ["grpo"]\n\n[grpo]\nsteps = 60\n')
    for step in (4, 8):
        (run / "grpo" / "samples" / f"step_{step:06d}.jsonl").write_text(json.dumps(SAMPLE) + "\n")
    grow(run, 1, 31)
    settings = Settings(runs=str(tmp_path / "runs"), rankings=str(tmp_path / "rankings"), drain=0.2)
    with serving([Served(name="said", sampler=ScriptedSampler(script))], settings) as running:
        yield running


def grow(run: Path, begin: int, end: int, **more: float) -> None:
    """As a run does that goes on at a step: what it had beyond is forgotten."""
    log = MetricsLog(run / "grpo" / "metrics.jsonl", step=begin - 1)
    for step in range(begin, end):
        log.write(
            {"step": step, "tokens": step * 100, "seconds": step / 2, "loss": 1 / step, "reward": step / 60, **more}
        )
    log.close()


def add_sets(live: Live, name: str, count: int) -> None:
    sets = [
        {"prompt": f"{n}?", "answers": [{"text": f"{n} {letter} {MARKUP}"} for letter in "xyz"]} for n in range(count)
    ]
    assert httpx.post(f"{live.url}/rankings/{name}/sets", json={"sets": sets}).json()["added"] == count


def test_answers_are_drawn_and_ranked_by_mouse(page: Any, live: Live, tmp_path: Path) -> None:
    visit(page, "/rank", "rank")
    page.get_by_label("Prompts").fill("first\nsecond\n")
    page.get_by_label("Name").fill("mine")
    page.get_by_role("button", name="Draw answers to 2 prompts").click()
    page.get_by_text("No prompt got two different answers").wait_for()  # the script says one thing only
    page.get_by_label("Prompts").fill('{"prompt": "p", "answers": ["one", "two", "three"]}\n')
    page.get_by_role("button", name="Rank 1 set").click()
    page.locator("[data-judged='0']").wait_for()
    texts = page.locator(".candidate .body").all_inner_texts()
    page.locator(".candidate .body").nth(texts.index("two")).click()
    page.locator(".candidate .pick").nth(texts.index("one")).click()
    page.get_by_role("button", name="Tie").click()
    page.locator(".candidate .pick").nth(texts.index("three")).click()
    page.get_by_label("Reason").fill("shorter")
    page.get_by_role("button", name="Next").click()
    page.get_by_role("heading", name="All judged").wait_for()
    ((_, ranking),) = read_rankings(tmp_path / "rankings" / "local" / "mine.jsonl")
    assert {answer[0].text: rank for answer, rank in zip(ranking.answers, ranking.ranks, strict=True)} == {
        "two": 1,
        "one": 2,
        "three": 2,
    }
    assert (ranking.rater, ranking.reason) == ("me", "shorter")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Judgements for training").click()
    assert saved.value.suggested_filename == "mine.jsonl"
    assert saved.value.path().read_bytes() == (tmp_path / "rankings" / "local" / "mine.jsonl").read_bytes()


def test_answers_are_ranked_by_keyboard_alone(page: Any, live: Live, tmp_path: Path) -> None:
    add_sets(live, "typed", 11)
    visit(page, "/rank/typed", "rank")
    for number in range(12):  # the tenth is followed by a repeat
        page.locator(f"[data-judged='{number}']").wait_for()
        if number == 1:
            page.keyboard.press("s")
            continue
        page.keyboard.type("bbca=xz")  # b is taken out again; x and z are not letters here
        page.keyboard.press("Backspace")  # the open tie
        page.keyboard.press("Backspace")  # a
        page.keyboard.type("=ab")
        if number == 0:
            page.keyboard.press("r")
            page.keyboard.type("as good as same")
        page.keyboard.press("Enter")
    page.get_by_role("heading", name="All judged").wait_for()
    records = [json.loads(line) for line in (tmp_path / "rankings" / "local" / "typed.jsonl").read_text().splitlines()]
    assert [sorted(record["ranks"], key=str) for record in records] == [
        [None] * 3 if number == 1 else [1, 1, 3] for number in range(12)
    ]
    assert [number for number, record in enumerate(records) if record.get("repeat")] == [10]
    assert records[0]["reason"] == "as good as same"
    assert page.evaluate("window.X") is None


def test_another_window_does_not_judge_twice(page: Any, live: Live) -> None:
    add_sets(live, "both", 2)
    visit(page, "/rank/both", "rank")
    shown = httpx.get(f"{live.url}/rankings/both/next?rater=me").json()["shown"]
    body = {"rater": "me", "ticket": shown["ticket"], "skip": True}
    assert httpx.post(f"{live.url}/rankings/both/judgements", json=body).status_code == 200
    page.keyboard.type("ab")
    page.keyboard.press("Enter")
    page.get_by_text("judged meanwhile").wait_for()
    page.locator("[data-judged='1']").wait_for()


def test_a_run_is_watched_while_it_grows_and_is_resumed(page: Any, live: Live, tmp_path: Path) -> None:
    visit(page, "/runs", "runs")
    loss = page.get_by_role("region", name="Loss")
    loss.get_by_text("0.03333").wait_for()
    run = tmp_path / "runs" / "one"
    grow(run, 31, 41)
    page.get_by_text("40 records").wait_for()
    plot = loss.get_by_role("img")
    assert "at step 40" in plot.get_attribute("aria-label")
    grow(run, 21, 26, loss=7.0)  # resumed from step 20
    page.get_by_text("25 records").wait_for()
    assert "at step 25, from 0.05 to 7" in plot.get_attribute("aria-label")
    plot.focus()
    page.keyboard.press("ArrowRight")
    loss.get_by_text("step 1", exact=True).wait_for()
    page.locator("body").press("x")
    page.get_by_role("button", name="Tokens", pressed=True).wait_for()
    samples = page.get_by_role("region", name="Samples")
    samples.get_by_role("button", name="Show its thinking").first.click()
    assert MARKUP in samples.locator("pre").first.inner_text()
    page.get_by_role("button", name="Recipe").click()
    page.get_by_text("steps = 60").wait_for()
    page.get_by_role("checkbox", name="grpo").click()
    page.get_by_role("heading", name="Choose a stage").wait_for()
    assert page.evaluate("window.X") is None


def test_a_question_is_watched_stopped_and_asked_again(page: Any, live: Live) -> None:
    visit(page, "/playground?q=slow+one", "playground")
    assert not page.locator(".try").count()  # an address fills in, and never acts
    page.get_by_label("Question").press("Control+Enter")
    first = page.locator(".try").first
    first.get_by_text("step 3,").wait_for()  # it is seen to think
    first.get_by_role("button", name="Stop").click()
    page.locator(".try[data-state=cancelled]").wait_for()
    page.get_by_label("Question").fill("quick")
    page.get_by_role("button", name="low").click()
    page.get_by_role("button", name="Ask").click()
    done = page.locator(".try[data-state=completed]")
    done.get_by_text("Answer to quick").wait_for()
    done.get_by_text("said · low · direct").wait_for()
    assert done.locator(".figures").inner_text().split()[0] == "thinking"
    page.reload()
    page.locator(".try[data-state=completed]").wait_for()  # a try is a job: it is still there


def test_no_payload_runs_on_these_pages(page: Any, live: Live, tmp_path: Path) -> None:
    """In prompts, answers, reasons and names of raters; in samples, recipes and names of runs."""
    away: list[str] = []
    page.on("request", lambda asked: away.append(asked.url) if not asked.url.startswith((live.root, "blob:")) else None)
    page.on("dialog", lambda dialog: away.append(dialog.message))
    sets = [{"prompt": each, "answers": [{"text": each}, {"text": f"{each} too"}]} for each in PAYLOADS]
    assert httpx.post(f"{live.url}/rankings/bad/sets", json={"sets": sets}).json()["added"] == len(PAYLOADS)
    texts = ("task", "question", "gold", "thinking", "answer", "why")
    rows = [SAMPLE | dict.fromkeys(texts, each) for each in PAYLOADS]
    grpo = tmp_path / "runs" / "one" / "grpo"
    (grpo / "samples" / "step_000012.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = '[run]\nfolder = "x"\nstages = ["grpo"]\n\n[grpo]\nsteps = 60\n'
    (tmp_path / "runs" / "one" / "recipe.toml").write_text(recipe + "".join(f"# {each!r}\n" for each in PAYLOADS))
    for each in PAYLOADS:
        if "/" not in each:
            named = tmp_path / "runs" / each.replace("\n", " ")
            (named / "grpo").mkdir(parents=True)
            (named / "recipe.toml").write_text(recipe)
            grow(named, 1, 3)

    visit(page, "/rank/bad", "rank")
    page.get_by_label("Rater").fill(PAYLOADS[0])
    page.get_by_label("Rater").blur()
    for number in range(len(PAYLOADS)):
        page.locator(f"[data-judged='{number}']").wait_for()
        clean(page)
        page.locator("body").press("s")
    page.get_by_role("heading", name="All judged").wait_for()
    clean(page)
    visit(page, "/runs", "runs")
    clean(page)
    visit(page, "/runs?on=one:grpo", "runs")
    samples = page.get_by_role("region", name="Samples")
    samples.get_by_role("button", name="Show all").click()
    thoughts = samples.get_by_role("button", name="Show its thinking")
    while thoughts.count():
        thoughts.first.click()
    assert samples.locator("pre").count() >= len(PAYLOADS)
    page.get_by_role("button", name="Recipe").click()
    page.get_by_text("steps = 60").wait_for()
    clean(page)
    assert not away


@pytest.mark.parametrize("way", WAYS)
def test_axe_finds_nothing_serious_on_these_pages(chromium: Any, live: Live, way: str) -> None:
    add_sets(live, "seen", 2)
    with chromium.new_context(base_url=live.root, reduced_motion="reduce", **WAYS[way]) as context:
        context.set_default_timeout(READY)
        page = context.new_page()
        visit(page, "/rank", "rank")
        serious(page, "rankings")
        visit(page, "/rank/seen", "rank")
        page.keyboard.type("ba=c")
        serious(page, "rank")
        visit(page, "/runs", "runs")
        serious(page, "runs")
        visit(page, "/playground", "playground")
        page.get_by_label("Question").fill("quick")
        page.get_by_label("Question").press("Control+Enter")
        page.locator(".try[data-state=completed]").wait_for()
        serious(page, "playground")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
