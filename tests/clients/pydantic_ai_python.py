"""pydantic-ai: an agent over chat completions, responses and messages."""

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
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models import Model
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.profiles import ModelProfile
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider


class City(BaseModel):
    city: str
    people: int


def cells(model: Model) -> dict[str, object]:
    async def chat() -> None:
        equal((await Agent(model).run(SAY)).output, SAID)

    async def stream() -> None:
        async with Agent(model).run_stream(SAY) as result:
            streamed([piece async for piece in result.stream_text(delta=True, debounce_by=None)], SAID)

    async def tools() -> None:
        agent = Agent(model, tools=[multiply])
        equal((await agent.run(CALL)).output, CALLED)

    async def structured() -> None:
        called = await Agent(model, output_type=City).run(JSON.replace("say", "call final_result"))
        equal(called.output.model_dump(), CITY)
        equal((await Agent(model, output_type=NativeOutput(City)).run(JSON)).output.model_dump(), CITY)

    async def two_turns() -> None:
        first = await Agent(model).run(REMEMBER)
        equal((await Agent(model).run(WHICH, message_history=first.all_messages())).output, WORD)

    return {"chat": chat, "stream": stream, "tools": tools, "structured": structured, "two_turns": two_turns}


openai = OpenAIProvider(base_url=URL, api_key=KEY)
row("pydantic-ai, chat completions", "pydantic-ai-slim", **cells(OpenAIChatModel(MODEL, provider=openai)))
row("pydantic-ai, responses", "pydantic-ai-slim", **cells(OpenAIResponsesModel(MODEL, provider=openai)))
anthropic = AnthropicProvider(base_url=ROOT, api_key=KEY)
able = ModelProfile(supports_json_schema_output=True)  # known from a model's name only where that is Anthropic's
row("pydantic-ai, messages", "pydantic-ai-slim", **cells(AnthropicModel(MODEL, provider=anthropic, profile=able)))
