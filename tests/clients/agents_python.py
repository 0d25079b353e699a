"""openai-agents (Python): an agent over responses, and over chat completions."""

from __future__ import annotations

from agents import (
    Agent,
    Model,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    SQLiteSession,
    function_tool,
    set_tracing_disabled,
)
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
from openai import AsyncOpenAI
from pydantic import BaseModel

set_tracing_disabled(True)


class City(BaseModel):
    city: str
    people: int


def cells(kind: type[Model]) -> dict[str, object]:
    def agent(**more: object) -> Agent:
        client = AsyncOpenAI(base_url=URL, api_key=KEY, max_retries=0)
        return Agent(name="agent", instructions="Be brief.", model=kind(MODEL, client), **more)

    async def chat() -> None:
        equal((await Runner.run(agent(), SAY)).final_output, SAID)

    async def stream() -> None:
        result = Runner.run_streamed(agent(), SAY)
        pieces = [
            event.data.delta
            async for event in result.stream_events()
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
        ]
        streamed(pieces, SAID)
        equal(result.final_output, SAID)

    async def tools() -> None:
        able = agent(tools=[function_tool(multiply)])
        equal((await Runner.run(able, CALL)).final_output, CALLED)
        result = Runner.run_streamed(able, CALL)
        async for _ in result.stream_events():
            pass
        equal(result.final_output, CALLED)

    async def structured() -> None:
        equal((await Runner.run(agent(output_type=City), JSON)).final_output.model_dump(), CITY)

    async def two_turns() -> None:
        session = SQLiteSession("two turns")
        await Runner.run(agent(), REMEMBER, session=session)
        equal((await Runner.run(agent(), WHICH, session=session)).final_output, WORD)

    return {"chat": chat, "stream": stream, "tools": tools, "structured": structured, "two_turns": two_turns}


row("openai-agents (Python), responses", "openai-agents", **cells(OpenAIResponsesModel))
row("openai-agents (Python), chat completions", "openai-agents", **cells(OpenAIChatCompletionsModel))
