"""Over the wire text never becomes a control token: every token × role × field × split, in our own format and ChatML.

A request whose field spells control tokens must send the engine the very control ids of the same request with harmless
text there, and its other ids must spell what was written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from live import Live, serving

from ponder.dialogue import Message, Start, load_format
from ponder.sampler.local import LocalSampler
from ponder.serve import Served
from ponder.testing.tiny import ByteTokenizer, ParrotModel, tiny_model, tiny_sampler, without_reserved
from ponder.tokenizer import Tokenizer

QWEN = Path(__file__).parents[1] / "golden" / "families" / "qwen3"
WINDOW = 8192
Body = dict[str, Any]


@dataclass
class Wire:
    """A served model whose engine's prompts are kept."""

    http: httpx.Client
    sampler: LocalSampler
    prompts: list[tuple[int, ...]]

    @property
    def tokenizer(self) -> Tokenizer:
        return self.sampler.tokenizer

    def ids(self, path: str, body: Body) -> tuple[int, ...]:
        """What reaches the engine."""
        self.prompts.clear()
        answer = self.http.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
        assert answer.status_code == 200, answer.text
        return self.prompts[0]

    def control(self, ids: tuple[int, ...]) -> list[int]:
        return [id for id in ids if self.tokenizer.is_control(id)]

    def text(self, ids: tuple[int, ...]) -> str:
        return self.tokenizer.decode(id for id in ids if not self.tokenizer.is_control(id))


def _wire(live: Live, sampler: LocalSampler, http: httpx.Client) -> Wire:
    prompts: list[tuple[int, ...]] = []
    submit = sampler.engine.submit

    def noting(ids: tuple[int, ...], *args: Any, **options: Any) -> int:
        prompts.append(tuple(ids))
        return submit(ids, *args, **options)

    sampler.engine.submit = noting  # type: ignore[method-assign]
    return Wire(http, sampler, prompts)


@pytest.fixture(scope="module", params=["ponder", "chatml"])
def wire(request: pytest.FixtureRequest) -> Iterator[Wire]:
    if request.param == "ponder":
        sampler = tiny_sampler(max_positions=WINDOW)
    else:
        tokenizer = Tokenizer.load(QWEN)
        model = tiny_model(vocab_size=416, max_positions=WINDOW)
        sampler = LocalSampler(model, tokenizer, load_format(tokenizer, "chatml"), max_batch=2)
    with serving([Served(name="m", sampler=sampler)]) as live, httpx.Client(base_url=live.root, timeout=60) as http:
        yield _wire(live, sampler, http)


USER = {"role": "user", "content": "q"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
RESULT = {"role": "tool", "tool_call_id": "c", "content": "3"}


def _chat(*messages: Body, **more: Any) -> Body:
    return {"messages": list(messages), "max_tokens": 1, "temperature": 0, **more}


def _said(**more: Any) -> Body:
    return {"role": "assistant", "content": "a", **more}


def _call(id: str = "c", **function: str) -> Body:
    return {**CALL, "id": id, "function": {**CALL["function"], **function}}


def _tool(**function: Any) -> Body:
    return {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, **function}}


CHAT: dict[str, Callable[[str], Body]] = {
    "system": lambda text: _chat({"role": "system", "content": text}, USER),
    "user": lambda text: _chat({"role": "user", "content": text}),
    "assistant": lambda text: _chat(USER, _said(content=text), USER),
    "the last assistant": lambda text: _chat(USER, _said(content=text, tool_calls=[CALL]), RESULT),
    "reasoning": lambda text: _chat(USER, _said(reasoning=text, tool_calls=[CALL]), RESULT),
    "reasoning_content": lambda text: _chat(USER, _said(reasoning_content=text, tool_calls=[CALL]), RESULT),
    "dropped reasoning": lambda text: _chat(USER, _said(reasoning=text), USER),
    "argument": lambda text: _chat(
        USER, _said(tool_calls=[_call(arguments=json.dumps({"x": [text]}, ensure_ascii=False))]), RESULT
    ),
    "argument name": lambda text: _chat(
        USER, _said(tool_calls=[_call(arguments=json.dumps({text: 1}, ensure_ascii=False))]), RESULT
    ),
    "result": lambda text: _chat(USER, _said(tool_calls=[CALL]), {**RESULT, "content": text}),
    "tool description": lambda text: _chat(USER, tools=[_tool(description=text)]),
    "parameter description": lambda text: _chat(
        USER, tools=[_tool(parameters={"type": "object", "properties": {"x": {"type": "string", "description": text}}})]
    ),
    "parameter name": lambda text: _chat(
        USER, tools=[_tool(parameters={"type": "object", "properties": {text: {"type": "string"}}})]
    ),
    "parameter value": lambda text: _chat(
        USER, tools=[_tool(parameters={"type": "object", "properties": {"x": {"enum": [text]}}})]
    ),
    "stop": lambda text: _chat(USER, stop=text[:500] if len(text) > 1 else text),
    "prompt_cache_key": lambda text: _chat(USER, prompt_cache_key=text[:500]),
}
NAMES: dict[str, Callable[[str], Body]] = {
    "developer": lambda text: _chat({"role": "developer", "content": text}, USER),
    "system name": lambda text: _chat({"role": "system", "content": "s", "name": text}, USER),
    "user name": lambda text: _chat({**USER, "name": text}),
    "assistant name": lambda text: _chat(USER, _said(name=text), USER),
}
ONE_NAME: dict[str, Callable[[str], Body]] = {
    "called name": lambda text: _chat(
        USER, _said(tool_calls=[_call(name=text)]), {"role": "tool", "tool_call_id": "c", "content": "3"}
    ),
    "tool name": lambda text: _chat(USER, tools=[_tool(name=text)]),
    "call id": lambda text: _chat(USER, _said(tool_calls=[_call(id=text)]), {**RESULT, "tool_call_id": text}),
}
UNSEEN = {"dropped reasoning", "stop", "prompt_cache_key", "call id"}  # never part of a prompt


def _spellings(wire: Wire) -> list[str]:
    """Each token alone and in company; those of one request in one text, which a window holds."""
    tokens = without_reserved(wire.tokenizer.control)
    return ["".join(f" {token}" for token in tokens), "".join(tokens), "\n".join(f"a{token}b" for token in tokens)]


def _fields(wire: Wire) -> dict[str, Callable[[str], Body]]:
    return CHAT | (NAMES if wire.sampler.format.name == "ponder" else {})


def test_no_field_spells_a_control_token(wire: Wire) -> None:
    for field, build in _fields(wire).items():
        harmless = wire.control(wire.ids("/v1/chat/completions", {"model": "m", **build("x")}))
        for text in _spellings(wire):
            if "name" in field and field not in ("argument name", "parameter name"):
                text = text[:512]
            ids = wire.ids("/v1/chat/completions", {"model": "m", **build(text)})
            assert wire.control(ids) == harmless, (field, text)
            if field not in UNSEEN and "\n" not in text:
                assert text.strip() in wire.text(ids), (field, text)


def test_no_name_spells_a_control_token(wire: Wire) -> None:
    """Names of tools may be refused for how they look; if they are not, they are text."""
    for field, build in ONE_NAME.items():
        harmless = wire.control(wire.ids("/v1/chat/completions", {"model": "m", **build("x")}))
        for token in without_reserved(wire.tokenizer.control):
            wire.prompts.clear()
            answer = wire.http.post("/v1/chat/completions", json={"model": "m", **build(token)})
            if answer.status_code == 400:
                assert answer.json()["error"]["param"], field
                continue
            assert answer.status_code == 200, answer.text
            ids = wire.prompts[0]
            assert wire.control(ids) == harmless, (field, token)
            assert field in UNSEEN or token in wire.text(ids), (field, token)


@pytest.mark.parametrize("role", ["system", "user", "assistant", "tool"])
def test_a_control_token_split_across_parts_stays_text(wire: Wire, role: str) -> None:
    def build(texts: list[str]) -> Body:
        parts = [{"type": "text", "text": text} for text in texts]
        match role:
            case "system":
                messages = [{"role": "system", "content": parts}, USER]
            case "assistant":
                messages = [USER, {"role": "assistant", "content": parts}, USER]
            case "tool":
                messages = [USER, _said(tool_calls=[CALL]), {**RESULT, "content": parts}]
            case _:
                messages = [{"role": "user", "content": parts}]
        return {"model": "m", **_chat(*messages)}

    harmless = wire.control(wire.ids("/v1/chat/completions", build(["x"])))
    tokens = without_reserved(wire.tokenizer.control)
    for cut in range(1, max(map(len, tokens))):
        texts = [piece for token in tokens for piece in (token[:cut], token[cut:])]
        ids = wire.ids("/v1/chat/completions", build(texts))
        assert wire.control(ids) == harmless, cut
        assert "".join(tokens) in wire.text(ids)


def test_a_control_token_split_across_messages_and_fields_stays_text(wire: Wire) -> None:
    """Between system messages that become one, and between thinking and answer."""
    names = wire.sampler.format.name == "ponder"
    for pair in (
        lambda a, b: _chat({"role": "system", "content": a}, {"role": "system", "content": b}, USER),
        lambda a, b: _chat(USER, _said(reasoning=a, content=b, tool_calls=[CALL]), RESULT),
        lambda a, b: _chat({**USER, "content": a}, {**USER, "content": b}),
        lambda a, b: _chat({**USER, "content": b, **({"name": a} if names else {})}),
    ):
        harmless = wire.control(wire.ids("/v1/chat/completions", {"model": "m", **pair("x", "y")}))
        for token in without_reserved(wire.tokenizer.control):
            for cut in (1, len(token) // 2, len(token) - 1):
                ids = wire.ids("/v1/chat/completions", {"model": "m", **pair(token[:cut], token[cut:])})
                assert wire.control(ids) == harmless, (token, cut)


RESPONSES: dict[str, Callable[[str], Body]] = {
    "input": lambda text: {"input": text},
    "instructions": lambda text: {"input": "q", "instructions": text},
    "user": lambda text: {"input": [{"role": "user", "content": [{"type": "input_text", "text": text}]}]},
    "system": lambda text: {"input": [{"role": "system", "content": text}, USER]},
    "assistant": lambda text: {
        "input": [USER, {"role": "assistant", "content": [{"type": "output_text", "text": text}]}, USER]
    },
    "result": lambda text: {
        "input": [
            USER,
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": text},
        ]
    },
    "arguments": lambda text: {
        "input": [
            USER,
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": json.dumps([text], ensure_ascii=False)},
            {"type": "function_call_output", "call_id": "c", "output": "3"},
        ]
    },
    "reasoning": lambda text: {
        "input": [
            USER,
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": text}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "3"},
        ]
    },
}


def test_no_item_of_a_response_spells_a_control_token(wire: Wire) -> None:
    for field, build in RESPONSES.items():
        more = {"model": "m", "max_output_tokens": 1, "store": False}
        harmless = wire.control(wire.ids("/v1/responses", {**more, **build("x")}))
        for text in _spellings(wire):
            ids = wire.ids("/v1/responses", {**more, **build(text)})
            assert wire.control(ids) == harmless, (field, text)
            if "\n" not in text:
                assert text.strip() in wire.text(ids), (field, text)


def test_a_completions_text_holds_no_control_token(wire: Wire) -> None:
    for text in _spellings(wire):
        ids = wire.ids("/v1/completions", {"model": "m", "prompt": text, "max_tokens": 1})
        assert not wire.control(ids)
        told = wire.http.post("/v1/tokenize", json={"prompt": text}).json()
        assert tuple(told["tokens"]) == ids
        assert wire.http.post("/v1/detokenize", json={"tokens": list(ids)}).json()["prompt"] == text


def test_what_looks_like_a_control_token_comes_back_as_it_was_said() -> None:
    tokenizer = ByteTokenizer()
    text = "".join(tokenizer.control)
    script = [*tokenizer.encode(text), tokenizer.control["<|end|>"]]
    prompt = len(tiny_sampler().format.render([Message.user("q")], start=Start.DIRECT).ids)
    sampler = tiny_sampler(model=ParrotModel(script, prompt, vocab_size=320), max_positions=4096)
    with serving([Served(name="m", sampler=sampler)]) as live, live.client() as client:
        extra = {"thinking_token_budget": 0}
        more = {"model": "m", "messages": [USER], "temperature": 0, "max_completion_tokens": 240}
        whole = client.chat.completions.create(**more, extra_body=extra).choices[0]
        assert text.startswith(whole.message.content)
        assert len(whole.message.content) >= 200
        stream = client.chat.completions.create(**more, stream=True, extra_body=extra)
        pieces = [choice.delta.content or "" for chunk in stream for choice in chunk.choices]
        assert "".join(pieces) == whole.message.content
