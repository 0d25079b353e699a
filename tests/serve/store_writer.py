"""A store that is written to until it is ended: on each line read, a child that says what was acknowledged.

Run by test_store_kill.py. Forking from a process this small takes a few milliseconds.
"""

import asyncio
import os
import sys

from ponder.serve.store import (
    ResponseStatus,
    RunMode,
    Store,
    StoredConversation,
    StoredEvent,
    StoredItem,
    StoredResponse,
)


def response(id: str, status: ResponseStatus) -> StoredResponse:
    body = {"id": id, "text": "x" * 3000}
    return StoredResponse(
        id=id, owner="a", model="m", status=status, running=RunMode.BACKGROUND, created_at=0, body=body, input=[{}]
    )


def acknowledge(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def write(store: Store, name: str) -> None:
    """Responses, their events, their ends, conversations and deletions, without end."""
    number = 0
    conversation = f"conv_{name}"
    await store.add_conversation(StoredConversation(id=conversation, owner="a", created_at=0, metadata={}))
    acknowledge("conversation", conversation)
    while True:
        id = f"resp_{name}_{number}"
        await store.add(response(id, ResponseStatus.IN_PROGRESS))
        acknowledge("added", id)
        await store.add_events("a", id, [StoredEvent(each, "delta", f"{id} {each}") for each in range(5)])
        acknowledge("events", id)
        await store.move("a", id, ResponseStatus.COMPLETED, {"id": id}, events=[StoredEvent(5, "last", f"{id} 5")])
        acknowledge("completed", id)
        await store.add_items("a", conversation, [StoredItem(id, {"id": id})])
        acknowledge("item", conversation, id)
        if number % 3 == 2:
            acknowledge("deleting", id)
            await store.delete("a", id)
            acknowledge("deleted", id)
        number += 1


async def write_much(path: str, number: int) -> None:
    store = Store(path)
    await asyncio.gather(*(write(store, f"{number}_{writer}") for writer in range(4)))


for number, _ in enumerate(sys.stdin):
    child = os.fork()
    if child == 0:
        acknowledge("child", os.getpid())
        asyncio.run(write_much(sys.argv[1], number))
    os.waitpid(child, 0)
    acknowledge("dead")
