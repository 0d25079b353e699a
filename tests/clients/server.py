"""A server whose answers are known: what the last user message asks for is what it says.

python tests/clients/server.py PORT

    say WORDS                     those words
    call NAME {"x": 1}            that tool; more than one may be asked for. Then: The tool said: RESULT
    remember WORD                 I remember WORD.
    which word                    WORD, if both messages of that turn came back
"""

from __future__ import annotations

import re
import sys

from ponder.dialogue import Conversation, ToolCall, ToolResult
from ponder.dialogue.messages import Role
from ponder.serve import Served, Settings, create_app
from ponder.serve.http.server import server
from ponder.testing.scripted import Say, ScriptedSampler

MODEL = "said"
SECONDS = 0.15  # longer than the server gathers a stream's pieces
CALL = re.compile(r"\bcall ([\w.-]+) (\{[^{}]*\})")
SAY = re.compile(r"\bsay (.+)", re.DOTALL)
REMEMBER = re.compile(r"\bremember (\w+)")


def script(conversation: Conversation, index: int) -> Say:
    asked = max(place for place, message in enumerate(conversation) if message.role is Role.USER)
    text, results = conversation[asked].text, list(results_of(conversation[asked + 1 :]))
    if calls := CALL.findall(text):
        if not results:
            return Say("", "I need a tool.", tuple(ToolCall(*call) for call in calls), seconds=SECONDS)
        return spoken(f"The tool said: {' '.join(results)}")
    if said := SAY.search(text):
        return spoken(said[1].strip())
    if word := REMEMBER.search(text):
        return spoken(f"I remember {word[1]}.")
    if "which word" in text:
        return spoken(remembered(conversation[:asked]))
    return spoken("Hello.")


def spoken(text: str) -> Say:
    return Say(text, "Let me see what to say.", seconds=SECONDS)


def results_of(messages: Conversation) -> list[str]:
    return [part.content for message in messages for part in message.parts if isinstance(part, ToolResult)]


def remembered(before: Conversation) -> str:
    """The word of an earlier turn, of which both messages must be there."""
    asked = [match[1] for message in before if message.role is Role.USER and (match := REMEMBER.search(message.text))]
    said = [message.text for message in before if message.role is Role.ASSISTANT]
    return asked[-1] if asked and f"I remember {asked[-1]}." in said else "I know of no word."


def main() -> None:
    sampler = ScriptedSampler(script, window=100_000)
    server(create_app([Served(name=MODEL, sampler=sampler)], Settings(port=int(sys.argv[1])))).run()


if __name__ == "__main__":
    main()
