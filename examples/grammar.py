"""Constrain the answer and leave the thinking free: a regular expression, a JSON schema, and a tool call.

python examples/grammar.py      # needs the extra `structured`
"""

from __future__ import annotations

import json

import ponder
from ponder.dialogue import Tool, ToolCall
from ponder.sampler.protocol import ToolChoice

SCHEMA = {
    "type": "object",
    "properties": {"product": {"type": "integer", "maximum": 9999}, "even": {"type": "boolean"}},
    "required": ["product", "even"],
    "additionalProperties": False,
}
MULTIPLY = Tool(
    name="multiply",
    description="The product of two numbers.",
    parameters=json.dumps(
        {
            "type": "object",
            "properties": {"a": {"type": "integer", "maximum": 99}, "b": {"type": "integer", "maximum": 99}},
            "required": ["a", "b"],
            "additionalProperties": False,
        }
    ),
)


def main() -> None:
    with ponder.load("mini") as model:
        answer = model.ask("What is 47 * 85?", grammar=ponder.Regex("[0-9]{4}"))
        print(f"{answer.text}   (thought for {answer.usage.reasoning_tokens} tokens first)")

        answer = model.ask("What is 47 * 85?", grammar=ponder.JsonSchema(json.dumps(SCHEMA)))
        print(json.loads(answer.text))

        # mini was taught no tools. The schema still holds: its calls can always be parsed.
        answer = model.ask("What is 47 * 85?", effort="none", tools=[MULTIPLY], tool_choice=ToolChoice.REQUIRED)
        for part in answer.message.parts:
            if isinstance(part, ToolCall):
                print(part.name, json.loads(part.arguments))


if __name__ == "__main__":
    main()
