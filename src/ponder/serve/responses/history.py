"""What came before a request: the responses it follows, its conversation, and thoughts that are kept here."""

from __future__ import annotations

from ponder.serve.errors import ApiError
from ponder.serve.responses.items import response_of
from ponder.serve.responses.schema import ResponseRequest
from ponder.serve.state import State
from ponder.serve.store import Item, NotFound, Response


async def history(asked: ResponseRequest, owner: str, state: State) -> list[Item]:
    """The items before this request's own, oldest first."""
    try:
        if asked.conversation_id is not None:
            return await state.store.all_items(owner, asked.conversation_id)
        if asked.previous_response_id is None:
            return []
        chain = await state.store.chain(owner, asked.previous_response_id)
    except NotFound as missing:
        param = "conversation" if asked.conversation_id else "previous_response_id"
        raise ApiError(404, str(missing), param=param, code=f"{param}_not_found") from None
    for response in chain:
        if response.status.live:
            raise ApiError(400, f"response '{response.id}' is not done yet", param="previous_response_id")
        if response.conversation_id is not None:
            raise ApiError(
                400,
                f"response '{response.id}' belongs to conversation '{response.conversation_id}': name that one",
                param="previous_response_id",
            )
    return [
        item
        for response in chain
        for item in (*(Item(body["id"], body) for body in response.input), *kept_items(response))
    ]


async def with_kept_thoughts(items: list[Item], owner: str, state: State) -> list[Item]:
    """Reasoning items that name one of this server's, and bring nothing of their own, with what is kept of it."""
    found: dict[str, Item] = {}
    for item in items:
        bare = item.body["type"] == "reasoning" and item.hidden is None
        if not bare or {"content", "encrypted_content"} & item.body.keys():
            continue
        response_id = response_of(item.id)
        try:
            kept = await state.store.response(owner, response_id) if response_id else None
        except NotFound:
            continue  # irrelevant, or refused where it is read
        found |= {each.id: each for each in kept_items(kept) if each.id == item.id} if kept else {}
    return [found.get(item.id, item) for item in items]


def kept_items(response: Response) -> list[Item]:
    """The output of a stored response, with what is hidden of it."""
    hidden = {each["id"]: each["hidden"] for each in response.output}
    return [Item(body["id"], body, hidden.get(body["id"])) for body in response.body["output"]]
