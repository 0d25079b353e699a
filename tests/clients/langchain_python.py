"""LangChain (Python): its model of openai over both of that API's endpoints, and its model of anthropic."""

from __future__ import annotations

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
    URL,
    WHICH,
    WORD,
    equal,
    multiply,
    row,
    streamed,
)
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

MULTIPLY = tool(multiply)


class City(BaseModel):
    """A city."""

    city: str
    people: int


def cells(model: BaseChatModel) -> dict[str, object]:
    def chat() -> None:
        equal(model.invoke(SAY).text, SAID)

    def stream() -> None:
        streamed([chunk.text for chunk in model.stream(SAY)], SAID)

    def tools() -> None:
        able = model.bind_tools([MULTIPLY])
        first = None
        for chunk in able.stream(CALL):
            first = chunk if first is None else first + chunk
        (call,) = first.tool_calls
        result = ToolMessage(MULTIPLY.invoke(call["args"]), tool_call_id=call["id"])
        equal(able.invoke([HumanMessage(CALL), first, result]).text, CALLED)

    def structured() -> None:
        able = model.with_structured_output(City, method="json_schema")
        equal(able.invoke(JSON).model_dump(), CITY)
        called = model.with_structured_output(City, method="function_calling")
        equal(called.invoke(JSON.replace("say", "call City")).model_dump(), CITY)

    def two_turns() -> None:
        first = model.invoke(REMEMBER)
        equal(model.invoke([HumanMessage(REMEMBER), first, HumanMessage(WHICH)]).text, WORD)

    return {"chat": chat, "stream": stream, "tools": tools, "structured": structured, "two_turns": two_turns}


openai = {"model": MODEL, "base_url": URL, "api_key": KEY, "max_retries": 0}
row("LangChain (Python), ChatOpenAI", "langchain-openai", **cells(ChatOpenAI(**openai)))
row(
    "LangChain (Python), ChatOpenAI with responses",
    "langchain-openai",
    **cells(ChatOpenAI(**openai, use_responses_api=True)),
)
anthropic = ChatAnthropic(model=MODEL, base_url=ROOT, api_key=KEY, max_retries=0)
row("LangChain (Python), ChatAnthropic", "langchain-anthropic", **cells(anthropic))
