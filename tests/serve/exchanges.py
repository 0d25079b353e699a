"""Requests whose answers are recorded in tests/golden/serve, and the models that answer them the same everywhere."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx2 as httpx
from live import Live

from ponder.dialogue import ToolCall
from ponder.serve import Served, Settings
from ponder.testing.scripted import Say, ScriptedSampler
from ponder.testing.tiny import ByteTokenizer, ParrotModel, tiny_sampler

SETTINGS = Settings(coalesce=1000)  # so that what a stream joins does not depend on time
PROMPT, SAID = "ab", "cd"
ASKED = [{"role": "user", "content": "2+2?"}]
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}]
SHOWN = {"reasoning_format": "reasoning"}
INCLUDED = {"include": ["reasoning.content"]}
FLAT_TOOLS = [{"type": "function", "name": "add", "parameters": {"type": "object", "properties": {}}}]
TURNS = [
    {"role": "user", "content": "1+1?"},
    {"type": "reasoning", "id": "rs_mine", "summary": [], "content": [{"type": "reasoning_text", "text": "One, one."}]},
    {"role": "assistant", "content": "Two."},
    {"role": "user", "content": "2+2?"},
]
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
CHAT, TEXT, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
LINES = {
    "2+2?": Say("Four, I think.", reasoning="Two and two."),
    "call": Say("Wait.", reasoning="I need it.", calls=(ToolCall("add", '{"a": 2, "b": 2}'), ToolCall("add", "{}"))),
}

EXCHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat_hides_the_reasoning": (CHAT, {"messages": ASKED}),
    "chat_shows_the_reasoning_on_request": (CHAT, {"messages": ASKED, **SHOWN}),
    "chat_streams": (CHAT, {"messages": ASKED, **STREAMED}),
    "chat_streams_the_reasoning_on_request": (CHAT, {"messages": ASKED, **STREAMED, **SHOWN}),
    "chat_ends_with_length_when_thinking_ate_the_room": (CHAT, {"messages": ASKED, "max_completion_tokens": 3}),
    "chat_keeps_room_for_the_answer": (CHAT, {"messages": ASKED, "max_completion_tokens": 4, "answer_room": 2}),
    "chat_gives_two_choices": (CHAT, {"messages": ASKED, "n": 2}),
    "chat_calls_tools": (CHAT, {"messages": [{"role": "user", "content": "call"}], "tools": TOOLS}),
    "chat_streams_calls": (CHAT, {"messages": [{"role": "user", "content": "call"}], "tools": TOOLS, **STREAMED}),
    "error_unknown_field": (CHAT, {"messages": ASKED, "prediction": {}}),
    "error_out_of_bounds": (CHAT, {"messages": ASKED, "n": 0}),
    "error_unsupported_value": (TEXT, {"prompt": PROMPT, "best_of": 2}),
    "error_unknown_model": (CHAT, {"messages": ASKED, "model": "none"}),
    "error_unknown_path": ("/v1/nothing", {}),
    "completion": (TEXT, {"prompt": PROMPT}),
    "completion_streams": (TEXT, {"prompt": PROMPT, "echo": True, **STREAMED}),
    "completion_echoes_with_log_probabilities": (TEXT, {"prompt": PROMPT, "echo": True, "logprobs": 0}),
    "completion_scores_a_prompt": (TEXT, {"prompt": PROMPT, "echo": True, "logprobs": 0, "max_tokens": 0}),
    "error_prompt_too_long": (TEXT, {"prompt": "x" * 300}),
    "response_hides_the_reasoning": (RESPONSES, {"input": "2+2?"}),
    "response_shows_the_reasoning_on_request": (RESPONSES, {"input": "2+2?", **INCLUDED}),
    "response_streams": (RESPONSES, {"input": "2+2?", "stream": True}),
    "response_streams_the_reasoning_on_request": (RESPONSES, {"input": "2+2?", "stream": True, **INCLUDED}),
    "response_streams_calls": (RESPONSES, {"input": "call", "tools": FLAT_TOOLS, "stream": True}),
    "response_is_incomplete_when_thinking_ate_the_room": (RESPONSES, {"input": "2+2?", "max_output_tokens": 3}),
    "response_drops_the_reasoning_of_the_last_turn": (RESPONSES, {"input": TURNS}),
    "error_unknown_field_of_a_response": (RESPONSES, {"input": "2+2?", "reasoning": {"summary": "detailed"}}),
    "tokenize_text": ("/v1/tokenize", {"prompt": "aé<|end|>"}),
    "tokenize_messages": ("/v1/tokenize", {"messages": ASKED, "return_token_strs": True}),
    "detokenize": ("/v1/detokenize", {"tokens": [97, 98]}),
}
CHANGING = (
    (r"(chatcmpl-|cmpl-|call_|fp_|resp_|rs_|msg_|fc_)[0-9a-f]{8,}", r"\1ID"),
    (r'"created": ?\d+', '"created": 0'),
    (r'"(created|completed)_at": ?\d+', r'"\1_at":0'),
)


def models() -> list[Served]:
    said = ScriptedSampler(lambda messages, index: LINES[messages[-1].text])
    tokenizer = ByteTokenizer()
    script = [*tokenizer.encode(SAID), tokenizer.control["<|end|>"]]
    parrot = tiny_sampler(model=ParrotModel(script, len(PROMPT)))
    return [Served(name="said", sampler=said), Served(name="parrot", sampler=parrot)]


def exchange(live: Live, name: str) -> dict[str, Any]:
    """The request and its answer, without what changes from time to time. Log-probabilities are rounded."""
    path, body = EXCHANGES[name]
    body = {"model": "said" if path in (CHAT, RESPONSES) else "parrot", **body} if path != "/v1/nothing" else body
    answer = httpx.post(live.root + path, json=body, timeout=60)
    text = answer.text
    for pattern, replacement in CHANGING:
        text = re.sub(pattern, replacement, text)
    told: dict[str, Any] = {"path": path, "request": body, "status": answer.status_code}
    if body.get("stream"):
        return told | {"stream": text.splitlines()}
    return told | {"response": json.loads(text, parse_float=lambda number: round(float(number), 3))}
