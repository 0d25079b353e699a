"""openai (Python): chat completions and responses."""

from __future__ import annotations

import json

from cells import (
    CALL,
    CALLED,
    CITY,
    JSON,
    KEY,
    MODEL,
    REMEMBER,
    SAID,
    SAY,
    URL,
    WHICH,
    WORD,
    equal,
    multiply,
    row,
    streamed,
)
from openai import OpenAI, pydantic_function_tool
from pydantic import BaseModel

client = OpenAI(base_url=URL, api_key=KEY, max_retries=0)


class Pair(BaseModel):
    """The product of two numbers."""

    a: int
    b: int


class City(BaseModel):
    city: str
    people: int


MULTIPLY = pydantic_function_tool(Pair, name="multiply")
FUNCTION = {"type": "function", "strict": True, **{key: MULTIPLY["function"][key] for key in ("name", "parameters")}}


def ask(*messages: object, **more: object) -> object:
    return client.chat.completions.create(model=MODEL, messages=[*messages], **more).choices[0].message


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def chat() -> None:
    equal(ask(user(SAY)).content, SAID)


def stream() -> None:
    with client.chat.completions.stream(model=MODEL, messages=[user(SAY)]) as events:
        pieces = [event.delta for event in events if event.type == "content.delta"]
        equal(events.get_final_completion().choices[0].message.content, SAID)
    streamed(pieces, SAID)


def tools() -> None:
    with client.chat.completions.stream(model=MODEL, messages=[user(CALL)], tools=[MULTIPLY]) as events:
        message = events.get_final_completion().choices[0].message
    (call,) = message.tool_calls
    result = {
        "role": "tool",
        "tool_call_id": call.id,
        "content": multiply(**call.function.parsed_arguments.model_dump()),
    }
    equal(ask(user(CALL), message, result, tools=[MULTIPLY]).content, CALLED)


def structured() -> None:
    answer = client.chat.completions.parse(model=MODEL, messages=[user(JSON)], response_format=City)
    equal(answer.choices[0].message.parsed.model_dump(), CITY)


def two_turns() -> None:
    equal(ask(user(REMEMBER), ask(user(REMEMBER)), user(WHICH)).content, WORD)


def responses_chat() -> None:
    equal(client.responses.create(model=MODEL, input=SAY).output_text, SAID)


def responses_stream() -> None:
    with client.responses.stream(model=MODEL, input=SAY) as events:
        pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
        equal(events.get_final_response().output_text, SAID)
    streamed(pieces, SAID)


def responses_tools() -> None:
    with client.responses.stream(model=MODEL, input=CALL, tools=[FUNCTION]) as events:
        output = events.get_final_response().output
    (call,) = (item for item in output if item.type == "function_call")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": multiply(**json.loads(call.arguments))}
    answer = client.responses.create(model=MODEL, input=[user(CALL), *output, result], tools=[FUNCTION])
    equal(answer.output_text, CALLED)


def responses_structured() -> None:
    equal(client.responses.parse(model=MODEL, input=JSON, text_format=City).output_parsed.model_dump(), CITY)


def responses_two_turns() -> None:
    first = client.responses.create(model=MODEL, input=REMEMBER)
    second = client.responses.create(model=MODEL, input=WHICH, previous_response_id=first.id)
    equal(second.output_text, WORD)


row(
    "openai (Python), chat completions",
    "openai",
    chat=chat,
    stream=stream,
    tools=tools,
    structured=structured,
    two_turns=two_turns,
)
row(
    "openai (Python), responses",
    "openai",
    chat=responses_chat,
    stream=responses_stream,
    tools=responses_tools,
    structured=responses_structured,
    two_turns=responses_two_turns,
)
