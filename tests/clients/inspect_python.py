"""inspect_ai: small evaluations over chat completions, responses and messages."""

from __future__ import annotations

from cells import CALL, CALLED, JSON, KEY, MODEL, REMEMBER, ROOT, SAID, SAY, URL, WHICH, WORD, equal, multiply, row
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessageUser, GenerateConfig, ResponseSchema, get_model
from inspect_ai.scorer import match
from inspect_ai.solver import Generate, Solver, TaskState, generate, solver, use_tools
from inspect_ai.tool import Tool, tool
from inspect_ai.util import JSONSchema


@tool(name="multiply")
def multiply_tool() -> Tool:
    async def execute(a: int, b: int) -> str:
        """The product of two numbers.

        Args:
            a: One.
            b: The other.
        """
        return multiply(a, b)

    return execute


@solver
def ask_more(text: str) -> Solver:
    async def solve(state: TaskState, generate: Generate) -> TaskState:
        state.messages.append(ChatMessageUser(content=text))
        return await generate(state)

    return solve


def cells(name: str, url: str, **more: object) -> dict[str, object]:
    def run(asked: str, target: str, *solvers: Solver, config: GenerateConfig | None = None) -> None:
        model = get_model(name, base_url=url, api_key=KEY, memoize=False, **more)
        task = Task(
            dataset=[Sample(input=asked, target=target)],
            solver=[*solvers],
            scorer=match(),
            config=config or GenerateConfig(),
        )
        (log,) = eval(task, model=model, display="none", max_retries=0, log_model_api=False)
        if log.error:
            raise RuntimeError(log.error.message)
        (sample,) = log.samples
        equal(sample.output.completion, target)
        equal(log.results.scores[0].metrics["accuracy"].value, 1)

    city = JSONSchema(
        type="object",
        properties={"city": JSONSchema(type="string"), "people": JSONSchema(type="integer")},
        required=["city", "people"],
        additionalProperties=False,
    )
    schema = GenerateConfig(response_schema=ResponseSchema(name="city", json_schema=city))
    return {
        "chat": lambda: run(SAY, SAID, generate()),
        "stream": "it does not stream",
        "tools": lambda: run(CALL, CALLED, use_tools(multiply_tool()), generate()),
        "structured": lambda: run(JSON, JSON.removeprefix("say "), generate(), config=schema),
        "two_turns": lambda: run(REMEMBER, WORD, generate(), ask_more(WHICH)),
    }


row("inspect_ai, chat completions", "inspect-ai", **cells(f"openai-api/ponder/{MODEL}", URL))
row("inspect_ai, responses", "inspect-ai", **cells(f"openai/{MODEL}", URL, responses_api=True))
row("inspect_ai, messages", "inspect-ai", **cells(f"anthropic/{MODEL}", ROOT))
