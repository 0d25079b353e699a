"""What is acknowledged is kept, for its owner alone, until it is deleted or past its time."""

import asyncio
import os
import sqlite3
from dataclasses import replace

import pytest

from ponder.serve.errors import NotFound
from ponder.serve.store import (
    ResponseStatus,
    RunMode,
    SortOrder,
    Store,
    StoredConversation,
    StoredEvent,
    StoredItem,
    StoredResponse,
    StoreError,
    StoreLimits,
    TooLarge,
)
from ponder.serve.store.database import Database
from ponder.types import InvalidRequest

DAY = 86400
TEXT = "a lone surrogate \ud800, a NUL \x00, 思"
HIDDEN = "what is thought"


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def response(id="resp_1", status=ResponseStatus.COMPLETED, **changes):
    return replace(
        StoredResponse(
            id=id,
            owner="anna",
            model="mini",
            status=status,
            running=RunMode.FOREGROUND,
            created_at=1_000_000,
            body={"id": id, "text": TEXT},
            request={"model": "mini", "input": TEXT},
            input=[{"id": "msg_1", "text": TEXT}],
            output=[{"type": "reasoning", "text": HIDDEN, "ids": [1, 2]}],
        ),
        **changes,
    )


def events(*numbers):
    return [StoredEvent(number, "response.output_text.delta", f'{{"n":{number}}}') for number in numbers]


@pytest.fixture
def run(tmp_path):
    """Runs a coroutine function on a store, which is opened again each time."""

    def opened(steps, **options):
        async def main():
            store = Store(tmp_path / "store.db", **options)
            try:
                return await steps(store)
            finally:
                store.close()

        return asyncio.run(main())

    return opened


def test_a_response_is_the_same_after_a_restart(run):
    kept = response(previous_response_id="resp_0", conversation_id="conv_1", running=RunMode.BACKGROUND)
    run(lambda store: store.add(kept))
    assert run(lambda store: store.response("anna", "resp_1")) == kept


def test_another_owners_object_does_not_exist(run):
    async def steps(store):
        await store.add(response(status=ResponseStatus.IN_PROGRESS), events=events(0))
        await store.add_conversation(
            StoredConversation(id="conv_1", owner="anna", created_at=1, metadata={}), [StoredItem("a", {})]
        )
        page = {"after": None, "most": 1, "order": SortOrder.ASC}
        for call in (
            store.response("ben", "resp_1"),
            store.chain("ben", "resp_1"),
            store.events("ben", "resp_1"),
            store.delete("ben", "resp_1"),
            store.conversation("ben", "conv_1"),
            store.set_metadata("ben", "conv_1", {}),
            store.add_items("ben", "conv_1", []),
            store.items("ben", "conv_1", **page),
            store.all_items("ben", "conv_1"),
            store.item("ben", "conv_1", "a"),
            store.delete_item("ben", "conv_1", "a"),
            store.delete_conversation("ben", "conv_1"),
        ):
            with pytest.raises(NotFound, match="does not exist"):
                await call
        assert not await store.add_events("ben", "resp_1", events(1))
        assert not await store.move("ben", "resp_1", ResponseStatus.CANCELLED, {})
        assert (await store.response("anna", "resp_1")).status is ResponseStatus.IN_PROGRESS

    run(steps)


def test_a_response_ends_once(run):
    async def steps(store):
        await store.add(response(status=ResponseStatus.QUEUED), events=events(0))
        assert await store.move("anna", "resp_1", ResponseStatus.IN_PROGRESS, {"v": 1}, events=events(1))
        assert await store.move("anna", "resp_1", ResponseStatus.CANCELLED, {"v": 2}, events=events(2))
        assert not await store.move("anna", "resp_1", ResponseStatus.COMPLETED, {"v": 3}, events=events(3))
        assert not await store.add_events("anna", "resp_1", events(4))
        assert await store.events("anna", "resp_1") == (ResponseStatus.CANCELLED, events(0, 1, 2))
        assert (await store.response("anna", "resp_1")).body == {"v": 2}
        assert await store.live() == []

    run(steps)


def test_events_are_read_from_any_place(run):
    async def steps(store):
        await store.add(response(status=ResponseStatus.QUEUED, running=RunMode.BACKGROUND))
        assert await store.last_event("resp_1") == -1
        assert await store.add_events("anna", "resp_1", events(*range(10)))
        assert await store.last_event("resp_1") == 9
        assert await store.events("anna", "resp_1", after=6) == (ResponseStatus.QUEUED, events(7, 8, 9))
        assert await store.events("anna", "resp_1", after=2, most=2) == (ResponseStatus.QUEUED, events(3, 4))

    run(steps)


def test_what_was_live_is_found_by_the_next_server(run):
    async def steps(store):
        await store.add(response("resp_2", ResponseStatus.QUEUED, created_at=2))
        await store.add(response("resp_3", ResponseStatus.COMPLETED))
        await store.add(response("resp_1", ResponseStatus.IN_PROGRESS, created_at=1, owner="ben"))

    run(steps)
    found = run(lambda store: store.live())
    assert [(each.id, each.owner, each.status) for each in found] == [
        ("resp_1", "ben", ResponseStatus.IN_PROGRESS),
        ("resp_2", "anna", ResponseStatus.QUEUED),
    ]


def test_a_chain_is_read_oldest_first_and_names_the_link_that_is_missing(run):
    async def steps(store):
        for number in range(1, 5):
            await store.add(
                response(f"resp_{number}", previous_response_id=f"resp_{number - 1}" if number > 1 else None)
            )
        assert [each.id for each in await store.chain("anna", "resp_4")] == ["resp_1", "resp_2", "resp_3", "resp_4"]
        await store.delete("anna", "resp_2")
        with pytest.raises(NotFound, match="resp_2"):
            await store.chain("anna", "resp_4")

    run(steps)


def test_a_chain_has_an_end(run):
    async def steps(store):
        await store.add(response("resp_1"))
        await store.add(response("resp_2", previous_response_id="resp_1"))
        await store.add(response("resp_3", previous_response_id="resp_2"))
        assert len(await store.chain("anna", "resp_2")) == 2
        with pytest.raises(TooLarge, match="start without previous_response_id"):
            await store.chain("anna", "resp_3")

    run(steps, limits=StoreLimits(chain=2))
    with pytest.raises(TooLarge, match="100 bytes"):
        run(lambda store: store.chain("anna", "resp_2"), limits=StoreLimits(chain_bytes=100))


def test_deleted_is_gone_from_the_disk(run, tmp_path):
    def bytes_on_disk():
        return b"".join(path.read_bytes() for path in tmp_path.iterdir())

    async def steps(store):
        await store.add(response(status=ResponseStatus.QUEUED), events=events(0))
        conversation = StoredConversation(id="conv_1", owner="anna", created_at=1, metadata={})
        await store.add_conversation(conversation, [StoredItem("msg_1", {"text": "what is said"}, {"text": HIDDEN})])
        assert HIDDEN.encode() in bytes_on_disk()
        await store.delete("anna", "resp_1")
        await store.delete_item("anna", "conv_1", "msg_1")
        assert HIDDEN.encode() not in bytes_on_disk()
        assert b"what is said" not in bytes_on_disk()
        assert await store.last_event("resp_1") == -1

    run(steps)


def test_what_is_past_its_time_is_not_there_and_then_deleted(run):
    clock = Clock()

    async def steps(store):
        await store.add(response("resp_old"))
        await store.add_conversation(StoredConversation(id="conv_1", owner="anna", created_at=1, metadata={}))
        clock.now += 20 * DAY
        await store.add(response("resp_new"))
        await store.add_items("anna", "conv_1", [StoredItem("a", {})])  # used: its time begins again
        clock.now += 11 * DAY
        with pytest.raises(NotFound):
            await store.response("anna", "resp_old")
        assert await store.prune() == 1
        assert (await store.response("anna", "resp_new")).id == "resp_new"
        assert (await store.conversation("anna", "conv_1")).id == "conv_1"
        clock.now += 20 * DAY
        assert await store.prune() == 2

    run(steps, clock=clock)


def test_kept_for_ever_where_no_days_are_given(run):
    clock = Clock()

    async def steps(store):
        await store.add(response())
        clock.now += 10_000 * DAY
        assert await store.prune() == 0
        await store.response("anna", "resp_1")

    run(steps, clock=clock, days=None)


def test_pages_of_a_conversation(run):
    async def steps(store):
        conversation = StoredConversation(id="conv_1", owner="anna", created_at=1, metadata={"topic": "tea"})
        await store.add_conversation(conversation, [StoredItem(f"item_{n}", {"n": n}) for n in range(5)])

        async def ids(after, most, order):
            page = await store.items("anna", "conv_1", after=after, most=most, order=order)
            return [item.id[-1] for item in page.items], page.more

        assert await ids(None, 2, SortOrder.ASC) == (["0", "1"], True)
        assert await ids("item_1", 3, SortOrder.ASC) == (["2", "3", "4"], False)
        assert await ids(None, 2, SortOrder.DESC) == (["4", "3"], True)
        assert await ids("item_1", 9, SortOrder.DESC) == (["0"], False)
        with pytest.raises(NotFound, match="item_9"):
            await ids("item_9", 2, SortOrder.ASC)
        await store.delete_item("anna", "conv_1", "item_1")
        assert [item.id for item in await store.all_items("anna", "conv_1")] == ["item_0", "item_2", "item_3", "item_4"]
        assert (await store.set_metadata("anna", "conv_1", {"topic": "x"})).metadata == {"topic": "x"}

    run(steps)


def test_an_items_id_is_taken_once(run):
    async def steps(store):
        conversation = StoredConversation(id="conv_1", owner="anna", created_at=1, metadata={})
        await store.add_conversation(conversation, [StoredItem("a", {})])
        with pytest.raises(InvalidRequest, match="already has an item"):
            await store.add_items("anna", "conv_1", [StoredItem("b", {}), StoredItem("a", {})])
        assert [item.id for item in await store.all_items("anna", "conv_1")] == ["a"]

    run(steps)


def test_what_a_response_adds_to_its_conversation_is_kept_with_it_or_not_at_all(run):
    async def steps(store):
        await store.add_conversation(StoredConversation(id="conv_1", owner="anna", created_at=1, metadata={}))
        running = response(status=ResponseStatus.IN_PROGRESS, conversation_id="conv_1")
        await store.add(running)
        with pytest.raises(TooLarge):
            await store.move(
                "anna", "resp_1", ResponseStatus.COMPLETED, {}, items=[StoredItem("big", {"text": "x" * 2000})]
            )
        assert (await store.response("anna", "resp_1")).status is ResponseStatus.IN_PROGRESS
        assert await store.move("anna", "resp_1", ResponseStatus.COMPLETED, {}, items=[StoredItem("a", {})])
        assert [item.id for item in await store.all_items("anna", "conv_1")] == ["a"]
        await store.add(replace(running, id="resp_2"))
        await store.delete_conversation("anna", "conv_1")
        assert await store.move("anna", "resp_2", ResponseStatus.COMPLETED, {}, items=[StoredItem("b", {})])

    run(steps, limits=StoreLimits(record=1000))


def test_everything_has_a_bound(run):
    async def steps(store):
        with pytest.raises(TooLarge, match=r"the input is too large \(\d+ bytes, 1000 are allowed\)"):
            await store.add(response(input=[{"text": "x" * 2000}]))
        await store.add(response(status=ResponseStatus.QUEUED))
        with pytest.raises(TooLarge, match="event 7"):
            await store.add_events("anna", "resp_1", [StoredEvent(7, "t", "x" * 2000)])
        await store.add_conversation(StoredConversation(id="conv_1", owner="anna", created_at=1, metadata={}))
        with pytest.raises(TooLarge, match="4 are allowed"):
            await store.add_items("anna", "conv_1", [StoredItem(str(n), {}) for n in range(5)])

    run(steps, limits=StoreLimits(record=1000, event=1000, conversation_items=4))


def test_a_full_file_refuses_and_keeps_what_it_has(run):
    async def steps(store):
        kept = []

        async def fill():
            for number in range(1000):
                await store.add(response(f"resp_{number}", body={"text": "x" * 10_000}))
                kept.append(number)

        with pytest.raises(StoreError, match="nothing was written"):
            await fill()
        assert kept
        for number in kept:
            await store.response("anna", f"resp_{number}")
        await store.delete("anna", "resp_0")
        await store.add(response("resp_small"))

    run(steps, limits=StoreLimits(file=300_000))


def test_many_writers_at_once_share_transactions_and_fail_alone(run):
    async def steps(store):
        await store.add(response("resp_7"))
        outcomes = await asyncio.gather(
            *(store.add(response(f"resp_{number}")) for number in range(100)), return_exceptions=True
        )
        assert [number for number, outcome in enumerate(outcomes) if outcome is not None] == [7]
        for number in range(100):
            await store.response("anna", f"resp_{number}")

    run(steps)


def test_the_file_is_its_users_alone_and_one_servers(tmp_path):
    path = tmp_path / "deep" / "store.db"
    store = Store(path)
    try:
        asyncio.run(store.add(response()))
        assert {oct(os.stat(each).st_mode & 0o777) for each in path.parent.iterdir()} == {"0o600"}
        with pytest.raises(StoreError, match="another process"):
            Store(path)
    finally:
        store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        asyncio.run(store.response("anna", "resp_1"))


def test_a_file_of_a_newer_version_or_another_program_is_refused(tmp_path):
    Store(tmp_path / "new.db").close()
    with sqlite3.connect(tmp_path / "new.db") as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE theirs (x)")
    other.close()
    (tmp_path / "text.db").write_text("this is no database, however long one reads it, and it goes on like this" * 99)
    for name, why in (
        ("new", "newer Ponder"),
        ("other", "another program"),
        ("text", "not a database"),
        ("", "opened"),
    ):
        path = tmp_path / f"{name}.db" if name else tmp_path
        with pytest.raises(StoreError, match=why):
            Store(path)


def test_an_older_file_gets_what_its_version_lacks(tmp_path):
    first = ("CREATE TABLE kept (id TEXT) STRICT",)
    second = ("ALTER TABLE kept ADD COLUMN note TEXT NOT NULL DEFAULT 'old'", "CREATE INDEX notes ON kept (note)")

    def opened(*versions, asked="SELECT id, note FROM kept ORDER BY id"):
        database = Database(tmp_path / "kept.db", versions, max_bytes=1 << 20)
        try:
            return [tuple(row) for row in asyncio.run(database.write(lambda c: c.execute(asked).fetchall()))]
        finally:
            database.close()

    assert opened(first, asked="INSERT INTO kept (id) VALUES ('a') RETURNING id") == [("a",)]
    assert opened(first, second) == [("a", "old")]
    assert opened(first, second, asked="INSERT INTO kept VALUES ('b', 'new') RETURNING id") == [("b",)]
    assert opened(first, second) == [("a", "old"), ("b", "new")]
    with pytest.raises(StoreError, match=r"newer Ponder \(store version 2, this Ponder knows 1\)"):
        opened(first)


def test_a_step_to_a_new_version_is_taken_whole_or_not_at_all(tmp_path):
    first, broken = ("CREATE TABLE kept (id TEXT) STRICT",), ("CREATE TABLE more (id TEXT)", "CREATE TABLE kept (x)")
    Database(tmp_path / "kept.db", (first,), max_bytes=1 << 20).close()
    with pytest.raises(StoreError, match="already exists"):
        Database(tmp_path / "kept.db", (first, broken), max_bytes=1 << 20)
    with sqlite3.connect(tmp_path / "kept.db") as file:
        assert file.execute("PRAGMA user_version").fetchone() == (1,)
        assert [name for (name,) in file.execute("SELECT name FROM sqlite_schema")] == ["kept"]
    file.close()
