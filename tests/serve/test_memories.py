"""Notes over HTTP: of the owner of the key alone, recalled in chats that ask for it, deleted to the byte."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from live import Live, serving

from ponder.serve import Served, Settings
from ponder.serve.http.auth import Keys, new_key
from ponder.testing.scripted import ScriptedSampler


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("memory") / "notes.db"


@pytest.fixture(scope="module")
def keys(file: Path) -> dict[str, str]:
    return {name: new_key(name, file.with_name("keys")) for name in ("ann", "bob")}


@pytest.fixture(scope="module")
def live(file: Path, keys: dict[str, str]) -> Iterator[Live]:
    sampler = ScriptedSampler(lambda conversation, index: f"You said: {conversation[-1].text}")
    settings = Settings(memory=str(file))
    with serving([Served(name="said", sampler=sampler)], settings, keys=Keys.load(file.with_name("keys"))) as running:
        yield running


class Owner:
    def __init__(self, live: Live, key: str) -> None:
        self.root, self.key = live.root, key

    def __call__(self, method: str, path: str, **more: Any) -> httpx.Response:
        return httpx.request(method, self.root + path, headers={"authorization": f"Bearer {self.key}"}, **more)

    def chat(self, text: str, **more: Any) -> str:
        body = {"model": "said", "messages": [{"role": "user", "content": text}], **more}
        answer = self("POST", "/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["message"]["content"])


@pytest.fixture
def ann(live: Live, keys: dict[str, str]) -> Owner:
    return Owner(live, keys["ann"])


@pytest.fixture
def bob(live: Live, keys: dict[str, str]) -> Owner:
    return Owner(live, keys["bob"])


def test_notes_are_kept_recalled_superseded_and_deleted_to_the_byte(ann: Owner, file: Path) -> None:
    old = ann("POST", "/v1/memory/notes", json={"text": "My code is quoxel.", "source": "a form", "at": 1000}).json()
    new = ann("POST", "/v1/memory/notes", json={"text": "My code is brimvat.", "replaces": old["id"]}).json()
    assert new["replaces"] == old["id"]
    found = ann("GET", "/v1/memory/recall", params={"query": "what is my code?"}).json()["data"]
    assert [(each["text"], each["score"]) for each in found] == [("My code is brimvat.", 1.0)]
    then = ann("GET", "/v1/memory/recall", params={"query": "what is my code?", "at": 2000}).json()["data"]
    assert [each["text"] for each in then] == ["My code is quoxel."]
    assert len(ann("GET", "/v1/memory/notes").json()["data"]) == 2
    assert ann("DELETE", f"/v1/memory/notes/{new['id']}").json()["deleted"] == 2
    left = b"".join(each.read_bytes() for each in file.parent.glob("notes.db*"))
    assert b"quoxel" not in left
    assert b"brimvat" not in left


def test_another_owner_sees_nothing(ann: Owner, bob: Owner) -> None:
    note = ann("POST", "/v1/memory/notes", json={"text": "My dog is called Rex."}).json()
    assert bob("GET", "/v1/memory/recall", params={"query": "dog called Rex"}).json()["data"] == []
    assert bob("GET", "/v1/memory/notes").json()["data"] == []
    assert bob("DELETE", f"/v1/memory/notes/{note['id']}").status_code == 404
    taken = bob("POST", "/v1/memory/notes", json={"text": "Tom", "replaces": note["id"]})
    assert taken.status_code == 404
    assert ann("DELETE", "/v1/memory/notes").json()["deleted"] == 1
    assert ann("GET", "/v1/memory/notes").json()["data"] == []


def test_a_chat_that_asks_for_it_recalls_and_is_noted(ann: Owner, bob: Owner) -> None:
    ann.chat("My boat is called Heron.", memory=True)
    assert "> User: My boat is called Heron." in ann.chat("What is my boat called?", memory=True)
    assert "Heron" not in bob.chat("What is my boat called?", memory=True)
    assert "Heron" not in ann.chat("What is my boat called?")
    notes = len(ann("GET", "/v1/memory/notes").json()["data"])
    ann.chat("Nothing of this is noted.", memory=False)
    assert len(ann("GET", "/v1/memory/notes").json()["data"]) == notes
    ann("DELETE", "/v1/memory/notes")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"text": ""},
        {"text": " "},
        {"text": "x", "at": "y"},
        {"text": "x", "at": 5, "until": 4},
        {"text": "x", "z": 1},
    ],
)
def test_what_cannot_be_noted_is_a_400(ann: Owner, body: dict[str, Any]) -> None:
    assert ann("POST", "/v1/memory/notes", json=body).status_code == 400


def test_without_a_memory_it_is_said_how_to_have_one() -> None:
    with serving([Served(name="said", sampler=ScriptedSampler(["x"]))]) as live:
        owner = Owner(live, "none")
        assert "--memory FILE" in owner("GET", "/v1/memory/notes").text
        body = {"model": "said", "messages": [{"role": "user", "content": "x"}], "memory": True}
        refused = owner("POST", "/v1/chat/completions", json=body)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "memory")
