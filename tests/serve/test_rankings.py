"""Ranking over HTTP: blind, resumed, apart by owner, in the files that the terminal writes and training reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from live import Live, serving

from ponder.evaluate.rank import AnswerFile, Session
from ponder.serve import Served, Settings
from ponder.serve.http.auth import Keys, new_key
from ponder.testing.scripted import ScriptedSampler
from ponder.train.data.preferences import read_rankings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rankings")


@pytest.fixture(scope="module")
def keys(folder: Path) -> dict[str, str]:
    return {name: new_key(name, folder / "keys") for name in ("ann", "bob", "..")}


@pytest.fixture(scope="module")
def live(folder: Path, keys: dict[str, str]) -> Iterator[Live]:
    settings = Settings(rankings=str(folder / "kept"))
    served = [Served(name="said", sampler=ScriptedSampler(()))]
    with serving(served, settings, keys=Keys.load(folder / "keys")) as running:
        yield running


class Owner:
    def __init__(self, live: Live, key: str) -> None:
        self.root, self.key = f"{live.url}/rankings", key

    def __call__(self, method: str, path: str = "", **more: Any) -> httpx.Response:
        return httpx.request(method, self.root + path, headers={"authorization": f"Bearer {self.key}"}, **more)

    def add(self, name: str, sets: int, answers: str = "xyz") -> None:
        body = {
            "sets": [
                {"prompt": f"{n}?", "answers": [{"text": f"{n}{letter}", "made": "secretly"} for letter in answers]}
                for n in range(sets)
            ]
        }
        answer = self("POST", f"/{name}/sets", json=body)
        assert answer.json()["added"] == sets, answer.text

    def judge(self, name: str, shown: dict[str, Any], rater: str = "me", **more: Any) -> httpx.Response:
        return self("POST", f"/{name}/judgements", json={"rater": rater, "ticket": shown["ticket"], **more})


@pytest.fixture
def ann(live: Live, keys: dict[str, str]) -> Owner:
    return Owner(live, keys["ann"])


@pytest.fixture
def bob(live: Live, keys: dict[str, str]) -> Owner:
    return Owner(live, keys["bob"])


def alphabetical(shown: dict[str, Any]) -> str:
    """A person who likes x best and z least, in letters."""
    texts = shown["answers"]
    return " > ".join("abc"[texts.index(text)] for text in sorted(texts))


def test_a_person_ranks_until_nothing_is_left_and_training_reads_it(ann: Owner, folder: Path) -> None:
    ann.add("colours", 12)
    state = ann("GET", "/colours/next", params={"rater": "me"}).json()
    assert (state["judged"], state["left"]) == (0, 13)  # every tenth is shown again
    orders = set()
    for number in range(13):
        shown = state["shown"]
        assert "secretly" not in json.dumps(state)  # blind
        orders.add(tuple(text[-1] for text in shown["answers"]))
        state = ann.judge("colours", shown, order=alphabetical(shown), reason="r" * (number == 0), seconds=1.25).json()
    assert (state["judged"], state["left"], state["shown"]) == (13, 0, None)
    assert len(orders) > 1  # shuffled
    path = folder / "kept" / "ann" / "colours.jsonl"
    judged = [ranking for _, ranking in read_rankings(path)]
    assert [each.ranks for each in judged] == [(1, 2, 3)] * 13
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record.get("repeat", False) for record in records].index(True) == 10
    assert (records[0]["reason"], records[0]["seconds"], records[0]["rater"]) == ("r", 1.2, "me")
    agreed = ann("GET", "/colours/agreement").json()
    assert agreed["with_self"] == {"value": 1.0, "low": None, "high": None, "count": 3}
    assert agreed["alpha"] is None
    assert ann("GET", "/colours/export").text == path.read_text()
    pairs = [json.loads(line) for line in ann("GET", "/colours/export", params={"kind": "pairs"}).text.splitlines()]
    assert len(pairs) == 39
    assert set(pairs[0]) == {"prompt", "chosen", "rejected"}


def test_the_terminal_goes_on_where_the_browser_stopped(ann: Owner, folder: Path) -> None:
    ann.add("both", 2)
    shown = ann("GET", "/both/next", params={"rater": "me"}).json()["shown"]
    ann.judge("both", shown, order="b > a = c")
    path = folder / "kept" / "ann" / "both.jsonl"
    session = Session(path, AnswerFile(path.with_suffix(".answers.jsonl")).sets, rater="me")
    assert session.left == 1
    there = session.next()
    assert there is not None
    session.add(there, [1, 2, 3])
    assert ann("GET", "/both/next", params={"rater": "me"}).json()["left"] == 0
    assert ann("GET", "").json()["data"][0] == {
        "id": "both",
        "object": "ranking",
        "sets": 2,
        "judgements": 2,
        "kept": True,
    }


def test_raters_see_their_own_orders_and_their_agreement(ann: Owner) -> None:
    ann.add("more", 6)
    for rater in ("one", "two"):
        for _ in range(6):
            shown = ann("GET", "/more/next", params={"rater": rater}).json()["shown"]
            ann.judge("more", shown, rater, order=alphabetical(shown))
    agreed = ann("GET", "/more/agreement").json()
    assert agreed["raters"] == [{"rater": name, "judged": 6, "skipped": 0} for name in ("one", "two")]
    assert (agreed["alpha"]["value"], agreed["pairs"]["value"], agreed["pairs"]["count"]) == (1.0, 1.0, 18)


def test_a_set_is_judged_once_and_only_by_letters_that_it_has(ann: Owner) -> None:
    ann.add("once", 2)
    shown = ann("GET", "/once/next", params={"rater": "me"}).json()["shown"]
    for wrong in ({"order": "a e"}, {"order": "a"}, {}, {"order": "a b", "skip": True}):
        assert ann.judge("once", shown, **wrong).status_code == 400
    assert ann.judge("once", shown, skip=True).json()["left"] == 1
    assert ann.judge("once", shown, order="a b").status_code == 409  # another window was faster
    assert ann("GET", "/once/agreement").json()["raters"] == [{"rater": "me", "judged": 0, "skipped": 1}]


def test_what_cannot_be_ranked_is_left_out_and_said(ann: Owner) -> None:
    body = {
        "sets": [
            {"prompt": "p", "answers": [{"text": "same"}, {"text": " same "}, {"text": " "}]},
            {"prompt": "q", "answers": [{"text": "a"}, {"text": "b"}]},
            {"prompt": "q", "answers": [{"text": "c"}, {"text": "d"}]},
        ]
    }
    told = ann("POST", "/odd/sets", json=body).json()
    assert (told["added"], [each["number"] for each in told["left_out"]]) == (1, [0, 2])
    assert "fewer than 2 different" in told["left_out"][0]["why"]


def test_another_owner_has_other_rankings_and_a_deleted_one_is_gone(
    ann: Owner, bob: Owner, folder: Path, live: Live, keys: dict[str, str]
) -> None:
    ann.add("mine", 2)
    assert bob("GET", "").json()["data"] == []
    assert bob("GET", "/mine/next", params={"rater": "me"}).status_code == 404
    assert bob("DELETE", "/mine").status_code == 404
    assert ann("DELETE", "/mine").json()["deleted"] is True
    assert not [*(folder / "kept" / "ann").glob("mine*")]
    for name in ("..", "a.b", "-", "a%2Fb"):
        assert ann("GET", f"/{name}/next", params={"rater": "me"}).status_code in (400, 404)
    assert Owner(live, keys[".."])("GET", "").status_code == 400


def test_without_a_folder_rankings_last_as_long_as_the_server() -> None:
    with serving([Served(name="said", sampler=ScriptedSampler(()))]) as other:
        local = Owner(other, "none")
        local.add("short", 2)
        assert local("GET", "").json()["kept"] is False
        place = other.state.rankings.judgements("local", "short").parent
        assert place.is_dir()
    assert not place.exists()
