"""Completions as the API's objects. The thinking is counted, and shown only where it was asked for."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from typing import Any

from ponder.dialogue import ToolCall
from ponder.sampler.protocol import Completion, SampledToken
from ponder.sampler.visible import AnswerTokens
from ponder.serve.chat.schema import ChatRequest
from ponder.serve.models import Served
from ponder.tokenizer import Tokenizer
from ponder.types import Segment, StopReason, Usage

FINISH = {
    StopReason.END: "stop",
    StopReason.STOP: "stop",
    StopReason.LENGTH: "length",
    StopReason.DEADLINE: "length",
    StopReason.ABORTED: "stop",
}


class Writer:
    """One response: its id, its model, and the fields in which it is told."""

    def __init__(self, body: ChatRequest, served: Served) -> None:
        self._body = body
        self._served = served
        self._number = secrets.token_hex(12)
        self._head = {
            "id": f"chatcmpl-{self._number}",
            "created": int(time.time()),
            "model": served.name,
            "system_fingerprint": served.fingerprint,
            "service_tier": "default",
        }
        self.reasoning_field = None if body.reasoning_format == "hidden" else body.reasoning_format

    def whole(self, completions: Iterable[Completion], **more: Any) -> dict[str, Any]:
        """A `chat.completion` object."""
        completions = list(completions)
        bill = sum((each.usage for each in completions), Usage())
        dropped = completions[0].dropped_turns
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [self._choice(index, each) for index, each in enumerate(completions)],
            "usage": usage(bill),
            **({"dropped_turns": dropped} if dropped else {}),
            **more,
        }

    def chunk(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """A `chat.completion.chunk` object."""
        return {**self._head, "object": "chat.completion.chunk", "choices": choices, **more}

    def _choice(self, index: int, completion: Completion) -> dict[str, Any]:
        calls, text = self.calls(index, completion), completion.text
        message: dict[str, Any] = {"role": "assistant", "content": text if text or not calls else None, "refusal": None}
        if self.reasoning_field is not None:
            message[self.reasoning_field] = completion.reasoning or None
        if calls:
            message["tool_calls"] = calls
        return {
            "index": index,
            "message": message,
            "finish_reason": finish_reason(completion),
            "logprobs": self.logprobs(completion),
        }

    def calls(self, index: int, completion: Completion) -> list[dict[str, Any]]:
        made = [part for part in completion.message.parts if isinstance(part, ToolCall)]
        return [self.call(index, number, call.name, call.arguments, call.id) for number, call in enumerate(made)]

    def call(self, index: int, number: int, name: str, arguments: str, id: str | None) -> dict[str, Any]:
        """Call `number` of choice `index`. Its id is the sampler's, or the same each time it is told."""
        own = f"call_{self._number}_{index}_{number}"
        return {"id": id or own, "type": "function", "function": {"name": name, "arguments": arguments}}

    def logprobs(self, completion: Completion) -> dict[str, Any] | None:
        """Of the visible answer's tokens."""
        tokenizer = self._served.tokenizer
        if not self._body.logprobs or tokenizer is None or completion.segment is None:
            return None
        return {"content": answer_logprobs(completion.segment, completion.text, tokenizer), "refusal": None}

    def spelled(self, tokens: Iterable[SampledToken]) -> list[dict[str, Any]]:
        """The tokens of a streamed piece."""
        tokenizer = self._served.tokenizer
        return [] if tokenizer is None else [spelled(token, tokenizer) for token in tokens]


def finish_reason(completion: Completion) -> str:
    calls = any(isinstance(part, ToolCall) for part in completion.message.parts)
    reason = FINISH[completion.stop_reason]
    return "tool_calls" if calls and reason == "stop" else reason


def usage(bill: Usage) -> dict[str, Any]:
    """The bill as the API tells it. A state that was computed again behind a fold stands apart."""
    told: dict[str, Any] = {
        "prompt_tokens": bill.prompt_tokens,
        "completion_tokens": bill.completion_tokens,
        "total_tokens": bill.prompt_tokens + bill.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": bill.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": bill.reasoning_tokens},
    }
    return told | ({"refilled_tokens": bill.refilled_tokens} if bill.refilled_tokens else {})


def answer_logprobs(segment: Segment, text: str, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """Token by token, up to where a stop string cut the text."""
    tokens = AnswerTokens(tokenizer)
    tops = segment.top_logprobs or ((),) * len(segment.ids)
    for id, logprob, phase, top in zip(segment.ids, segment.logprobs, segment.phases, tops, strict=True):
        tokens.feed(SampledToken(id, logprob, top), phase)
    return [spelled(token, tokenizer) for token in tokens.begun(text)]


def spelled(token: SampledToken, tokenizer: Tokenizer) -> dict[str, Any]:
    """One token of the answer as the API tells it."""
    return {
        **_token(tokenizer.token_bytes(token.id), token.logprob),
        "top_logprobs": [_token(_bytes_of(other, tokenizer), likely) for other, likely in token.top],
    }


def _bytes_of(id: int, tokenizer: Tokenizer) -> bytes:
    """A control token spells nothing: what ended the answer is not told."""
    return b"" if tokenizer.is_control(id) else tokenizer.token_bytes(id)


def _token(token: bytes, logprob: float) -> dict[str, Any]:
    return {"token": token.decode(errors="replace"), "logprob": max(logprob, -9999.0), "bytes": list(token)}
