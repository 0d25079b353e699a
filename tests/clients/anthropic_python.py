"""anthropic (Python): messages."""

from __future__ import annotations

from anthropic import Anthropic
from cells import (
    CALL,
    CALLED,
    CITY,
    JSON,
    KEY,
    MODEL,
    REMEMBER,
    ROOT,
    SAID,
    SAY,
    WHICH,
    WORD,
    equal,
    multiply,
    row,
    streamed,
)
from pydantic import BaseModel

client = Anthropic(base_url=ROOT, api_key=KEY, max_retries=0)
THINKING = {"type": "enabled", "budget_tokens": 1024}
MULTIPLY = {
    "name": "multiply",
    "description": "The product of two numbers.",
    "input_schema": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
    },
}


class City(BaseModel):
    city: str
    people: int


def user(content: object) -> dict[str, object]:
    return {"role": "user", "content": content}


def ask(*messages: object, **more: object) -> object:
    return client.messages.create(model=MODEL, max_tokens=4000, messages=[*messages], **more)


def chat() -> None:
    answer = ask(user(SAY), thinking=THINKING)
    equal([block.type for block in answer.content], ["thinking", "text"])
    equal(answer.content[-1].text, SAID)


def stream() -> None:
    with client.messages.stream(model=MODEL, max_tokens=4000, messages=[user(SAY)]) as events:
        streamed(list(events.text_stream), SAID)
        equal(events.get_final_message().content[-1].text, SAID)


def tools() -> None:
    with client.messages.stream(
        model=MODEL, max_tokens=4000, messages=[user(CALL)], tools=[MULTIPLY], thinking=THINKING
    ) as events:
        first = events.get_final_message()
    (call,) = (block for block in first.content if block.type == "tool_use")
    result = {"type": "tool_result", "tool_use_id": call.id, "content": multiply(**call.input)}
    turns = [user(CALL), {"role": "assistant", "content": first.content}, user([result])]
    equal(ask(*turns, tools=[MULTIPLY], thinking=THINKING).content[-1].text, CALLED)


def structured() -> None:
    answer = client.messages.parse(model=MODEL, max_tokens=4000, messages=[user(JSON)], output_format=City)
    equal(answer.parsed_output.model_dump(), CITY)


def two_turns() -> None:
    first = {"role": "assistant", "content": ask(user(REMEMBER)).content}
    equal(ask(user(REMEMBER), first, user(WHICH)).content[-1].text, WORD)


row(
    "anthropic (Python)", "anthropic", chat=chat, stream=stream, tools=tools, structured=structured, two_turns=two_turns
)
