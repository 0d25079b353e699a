"""What a server that stopped left is answered for by the next one."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import openai
import pytest
from live import serving
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from ponder.serve import Served, Settings
from ponder.serve.http.auth import Keys, new_key
from ponder.serve.store import ResponseStatus, RunMode, Store, StoredEvent, StoredResponse
from ponder.serve.store.database import APPLICATION_ID
from ponder.testing.scripted import Say, ScriptedSampler

KNOWN_EVENT = TypeAdapter(ResponseStreamEvent)


def served() -> list[Served]:
    def script(conversation, index):
        asked = conversation[-1].text
        return Say(f"answer to {asked}", reasoning="hm", seconds=30 if asked == "slow" else 0)

    return [Served(name="said", sampler=ScriptedSampler(script))]


def left(path: Path, steps: Callable[[Store], Coroutine[Any, Any, None]]) -> None:
    """What a server that was killed left in its file."""
    store = Store(path)
    try:
        asyncio.run(steps(store))
    finally:
        store.close()


def record(id: str, status: ResponseStatus, **more: Any) -> StoredResponse:
    body = {"id": id, "object": "response", "status": status.value, "output": [], "model": "said", "created_at": 1}
    body |= {"parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
    request = {"model": "said", "input": "hello", "background": True, **more.pop("request", {})}
    return StoredResponse(
        id=id,
        owner="local",
        model="said",
        status=status,
        created_at=int(time.time()),
        body=body,
        request=request,
        **{"running": RunMode.BACKGROUND, **more},
    )


def created(response: StoredResponse, number: int = 0) -> StoredEvent:
    told = {"type": "response.created", "sequence_number": number, "response": response.body}
    return StoredEvent(number, "response.created", json.dumps(told))


def test_everything_is_answered_for_after_a_restart(tmp_path: Path) -> None:
    settings = Settings(store=str(tmp_path / "store.db"))
    with serving(served(), settings) as live, live.client() as client:
        first = client.responses.create(model="said", input="one", include=["reasoning.encrypted_content"])
        background = client.responses.create(model="said", input="two", background=True, stream=True)
        events = [event.to_dict() for event in background]
        conversation = client.conversations.create(items=[{"role": "user", "content": "zero"}])
    with serving(served(), settings) as live, live.client() as client:
        assert client.responses.retrieve(first.id).output_text == "answer to one"
        again = client.responses.retrieve(events[0]["response"]["id"], stream=True)
        assert [event.to_dict() for event in again] == events
        assert client.responses.create(model="said", input="next", previous_response_id=first.id).output_text
        assert [item.content[0].text for item in client.conversations.items.list(conversation.id)] == ["zero"]
        history = [*(item.to_dict() for item in first.output), {"role": "user", "content": "three"}]
        assert client.responses.create(model="said", input=history).output_text == "answer to three"


def test_a_store_of_the_first_version_opens(tmp_path: Path) -> None:
    """Written by a server of that version: two responses, one of them in a conversation, and three in the background,
    of which one was done, one was in progress, and one was queued."""
    with sqlite3.connect(tmp_path / "store.db") as file:
        file.executescript((Path(__file__).parent / "store_version_1.sql").read_text())
        file.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        file.execute("PRAGMA user_version = 1")
        ids = dict(file.execute("SELECT json_extract(input, '$[#-1].content[0].text'), id FROM responses"))
        ((conversation,),) = file.execute("SELECT id FROM conversations")
    file.close()
    with serving(served(), Settings(store=str(tmp_path / "store.db"))) as live, live.client() as client:
        assert client.responses.retrieve(ids["one"]).output_text == "answer to one"
        shown = client.responses.retrieve(ids["one"], include=["reasoning.content"])
        assert shown.output[0].content[0].text == "hm"
        assert client.responses.create(model="said", input="next", previous_response_id=ids["one"]).output_text
        items = client.conversations.items.list(conversation, order="asc").data
        assert [item.content[0].text for item in items if item.type == "message"] == ["zero", "two", "answer to two"]
        assert client.responses.create(model="said", input="more", conversation=conversation).output_text
        events = [event.to_dict() for event in client.responses.retrieve(ids["three"], stream=True)]
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert events[-1]["type"] == "response.completed"
        assert client.responses.retrieve(ids["slow"]).error.code == "server_restarted"
        list(client.responses.retrieve(ids["four"], stream=True))
        queued = client.responses.retrieve(ids["four"])
        assert (queued.status, queued.output_text, queued.metadata) == ("completed", "answer to four", {"a": "b"})


def test_what_was_queued_is_run_again_and_its_events_go_on(tmp_path: Path) -> None:
    async def steps(store: Store) -> None:
        queued = record("resp_1", ResponseStatus.QUEUED)
        await store.add(queued, events=[created(queued)])

    left(tmp_path / "store.db", steps)
    with serving(served(), Settings(store=str(tmp_path / "store.db"))) as live, live.client() as client:
        events = [event.to_dict() for event in client.responses.retrieve("resp_1", stream=True)]
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert [events[0]["type"], events[1]["type"]] == ["response.created", "response.in_progress"]
        assert events[-1]["type"] == "response.completed"
        assert client.responses.retrieve("resp_1").output_text == "answer to hello"


def test_what_was_in_progress_has_failed_and_says_why(tmp_path: Path) -> None:
    async def steps(store: Store) -> None:
        for id, running in (("resp_1", RunMode.BACKGROUND), ("resp_2", RunMode.FOREGROUND)):
            begun = record(id, ResponseStatus.IN_PROGRESS, running=running)
            await store.add(begun, events=[created(begun)] if running is RunMode.BACKGROUND else [])

    left(tmp_path / "store.db", steps)
    with serving(served(), Settings(store=str(tmp_path / "store.db"))) as live, live.client() as client:
        for id in ("resp_1", "resp_2"):
            failed = client.responses.retrieve(id)
            assert failed.status == "failed"
            assert failed.error.code == "server_restarted"
        events = list(client.responses.retrieve("resp_1", stream=True))
        assert [(event.type, event.sequence_number) for event in events] == [
            ("response.created", 0),
            ("response.failed", 1),
        ]


def test_what_was_queued_for_a_model_that_is_gone_has_failed(tmp_path: Path) -> None:
    async def steps(store: Store) -> None:
        await store.add(record("resp_1", ResponseStatus.QUEUED, request={"model": "gone"}))
        await store.add(record("resp_2", ResponseStatus.QUEUED, request={"unknown": 1}))

    left(tmp_path / "store.db", steps)
    with serving(served(), Settings(store=str(tmp_path / "store.db"))) as live, live.client() as client:
        assert "no model 'gone'" in client.responses.retrieve("resp_1").error.message
        assert client.responses.retrieve("resp_2").status == "failed"


def test_a_shutdown_ends_what_runs_and_leaves_what_is_queued(tmp_path: Path) -> None:
    settings = Settings(store=str(tmp_path / "store.db"), drain=0)
    with serving(served(), settings) as live, live.client() as client:
        id = client.responses.create(model="said", input="slow", background=True).id
        while client.responses.retrieve(id).status != "in_progress":
            time.sleep(0.02)
        began = time.monotonic()
    assert time.monotonic() - began < 20
    with serving(served(), settings) as live, live.client() as client:
        assert client.responses.retrieve(id).error.code == "server_restarted"


def test_a_stream_that_is_followed_while_the_server_stops_is_ended(tmp_path: Path) -> None:
    settings = Settings(store=str(tmp_path / "store.db"), drain=1)
    with serving(served(), settings) as live, live.client() as client:
        stream = client.responses.create(model="said", input="slow", background=True, stream=True)
        assert next(iter(stream)).type == "response.created"
        stream.close()


def test_a_store_in_memory_leaves_nothing_behind() -> None:
    with serving(served()) as live, live.client() as client:
        client.responses.create(model="said", input="one")
        folder = live.state.responses.store.path.parent
        assert folder.exists()
    assert not folder.exists()


def test_the_client_sees_nothing_of_another_owner(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    anna, ben = new_key("anna", file), new_key("ben", file)
    with serving(served(), keys=Keys.load(file)) as live, live.client(anna) as hers, live.client(ben) as his:
        answer = hers.responses.create(model="said", input="one", background=True)
        conversation = hers.conversations.create(items=[{"id": "msg_a", "role": "user", "content": "zero"}])
        ask = {"model": "said", "input": "x"}
        for call in (
            lambda: his.responses.retrieve(answer.id),
            lambda: his.responses.retrieve(answer.id, stream=True),
            lambda: his.responses.cancel(answer.id),
            lambda: his.responses.delete(answer.id),
            lambda: his.responses.input_items.list(answer.id),
            lambda: his.responses.create(**ask, previous_response_id=answer.id),
            lambda: his.responses.create(**ask, conversation=conversation.id),
            lambda: his.responses.create(**ask, conversation=conversation.id, stream=True),
            lambda: his.responses.create(**ask, conversation=conversation.id, background=True),
            lambda: his.conversations.retrieve(conversation.id),
            lambda: his.conversations.update(conversation.id, metadata={}),
            lambda: his.conversations.delete(conversation.id),
            lambda: his.conversations.items.list(conversation.id),
            lambda: his.conversations.items.create(conversation.id, items=[{"role": "user", "content": "x"}]),
            lambda: his.conversations.items.retrieve("msg_a", conversation_id=conversation.id),
            lambda: his.conversations.items.delete("msg_a", conversation_id=conversation.id),
        ):
            with pytest.raises(openai.NotFoundError):
                call()
        sealed = hers.responses.create(model="said", input="one", store=False).output[0].to_dict()
        other = his.responses.create(model="said", input=[{"role": "user", "content": "two"}, sealed])
        assert [each.reason for each in other.input_transformations] == ["organization_mismatch"]
        assert hers.responses.retrieve(answer.id).id == answer.id
        assert hers.conversations.items.list(conversation.id).data


def test_one_owner_cannot_take_all_places_from_another(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    anna, ben = new_key("anna", file), new_key("ben", file)
    settings = Settings(queued_requests=4, drain=0)
    with serving(served(), settings, Keys.load(file)) as live, live.client(anna) as hers, live.client(ben) as his:
        ask = {"model": "said", "input": "slow", "background": True}
        accepted = {"queued", "in_progress"}
        assert {hers.responses.create(**ask).status for _ in range(4)} <= accepted
        with pytest.raises(openai.RateLimitError):
            hers.responses.create(**ask)
        assert {his.responses.create(**ask).status for _ in range(2)} <= accepted
        with pytest.raises(openai.RateLimitError):
            his.responses.create(**ask)
