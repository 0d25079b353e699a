"""instructor: every answer is an object, by a call of a tool or by a schema."""

from __future__ import annotations

from collections.abc import Iterable

import instructor
from cells import CITY, JSON, KEY, MODEL, URL, equal, row
from openai import OpenAI
from pydantic import BaseModel


class City(BaseModel):
    city: str
    people: int


CALLING = JSON.replace("say", "call City")
MODES = {instructor.Mode.TOOLS: CALLING, instructor.Mode.JSON_SCHEMA: JSON, instructor.Mode.JSON: JSON}


def client(mode: instructor.Mode = instructor.Mode.TOOLS) -> instructor.Instructor:
    return instructor.from_openai(OpenAI(base_url=URL, api_key=KEY, max_retries=0), mode=mode)


def asked(*texts: str) -> dict[str, object]:
    roles = ("user", "assistant", "user")
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    return {"model": MODEL, "messages": messages, "max_retries": 0}


def stream() -> None:
    *_, last = client().chat.completions.create_partial(
        response_model=City, **asked(CALLING.replace("City", "PartialCity"))
    )
    equal(last.model_dump(), CITY)


def tools() -> None:
    cities = client(instructor.Mode.PARALLEL_TOOLS).chat.completions.create(
        response_model=Iterable[City], **asked(f"{CALLING} {CALLING}")
    )
    equal([city.model_dump() for city in cities], [CITY, CITY])


def structured() -> None:
    for mode, text in MODES.items():
        equal(client(mode).chat.completions.create(response_model=City, **asked(text)).model_dump(), CITY)


def two_turns() -> None:
    first, turn = client().chat.completions.create_with_completion(response_model=City, **asked(CALLING))
    call = turn.choices[0].message.tool_calls[0]
    messages = [
        {"role": "user", "content": CALLING},
        turn.choices[0].message.model_dump(),
        {"role": "tool", "tool_call_id": call.id, "content": first.city},
        {"role": "user", "content": CALLING},
    ]
    again = client().chat.completions.create(model=MODEL, messages=messages, response_model=City, max_retries=0)
    equal(again.model_dump(), CITY)


row(
    "instructor",
    "instructor",
    chat="it gives objects only",
    stream=stream,
    tools=tools,
    structured=structured,
    two_turns=two_turns,
)
