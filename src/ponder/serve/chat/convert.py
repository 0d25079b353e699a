"""A chat completion request as an ask, and completions as the objects of the API.

The thinking is counted, and shown only where it was asked for.
"""

from __future__ import annotations

import json
import secrets
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from ponder.dialogue import Message, Reasoning, Role, Text, ToolCall, ToolResult
from ponder.dialogue.format import Format
from ponder.dialogue.messages import Part
from ponder.sampler.protocol import (
    CallDelta,
    Completion,
    Delta,
    Done,
    Grammar,
    JsonSchema,
    NextTurn,
    Regex,
    SampledToken,
    Streamed,
    Truncation,
)
from ponder.serve.chat.wire import (
    AnswerMessage,
    AssistantMessage,
    CallChunk,
    ChatCall,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatDelta,
    ChatHead,
    ChatLogprobs,
    ChatRefusal,
    ChatRequest,
    ChunkChoice,
    IndexedCall,
    NamedChatTool,
    TextPart,
    ToolMessage,
)
from ponder.serve.common.convert import (
    ANY_OBJECT,
    answer_logprobs,
    check_late_instructions,
    check_sampled,
    completion_usage,
    finish_reason,
    instructing_role,
    offered,
    read_answer_room,
    read_parallel_calls,
    read_sampled,
    read_thinking,
    read_tool_choice,
    read_tools,
    results_in_order,
    tenant,
    token_logprob,
)
from ponder.serve.errors import BadRequest, Unsupported
from ponder.serve.models import Served
from ponder.serve.settings import Settings
from ponder.think.ask import Ask
from ponder.types import Phase

# In -------------------------------------------------------------------------------------------------------------------


def read_chat(body: ChatRequest, served: Served, settings: Settings, owner: str) -> Ask:
    """Raises BadRequest naming the field that cannot be served as asked."""
    check_sampled(body, settings)
    _refuse(body, served)
    limit = body.max_completion_tokens or body.max_tokens
    effort, thinking = read_thinking(body.reasoning_effort, body.thinking_token_budget, named="reasoning_effort")
    functions = offered(body.tools)
    tools = read_tools(tool.model_dump(mode="json", exclude={"cache_control"}) for tool in functions)
    word, named = _tool_choice(body)
    return replace(
        read_sampled(body, read_chat_messages(body.messages, served.capabilities.format), served, settings),
        effort=effort,
        thinking=thinking,
        min_thinking=body.min_thinking_tokens or 0,
        answer_room=read_answer_room(body.answer_room, limit),
        max_tokens=limit,
        stop_ids=tuple(body.stop_token_ids or ()),
        top_logprobs=body.top_logprobs or 0,
        logprobs=bool(body.logprobs),
        grammar=_grammar(body),
        tools=tools,
        tool_choice=read_tool_choice(word if tools else None, named, tools),
        parallel_calls=read_parallel_calls(body.parallel_tool_calls if tools else None),
        truncation=Truncation(body.truncation),
        next_turn=NextTurn.TEXT,
        tenant=tenant(owner, body.prompt_cache_key, served),
    )


def _refuse(body: ChatRequest, served: Served) -> None:
    if not body.tools and body.tool_choice not in (None, "auto", "none"):
        raise BadRequest("tool_choice is given without tools: add tools, or leave it out", param="tool_choice")
    if body.top_logprobs and not body.logprobs:
        raise BadRequest("top_logprobs is given without logprobs: set logprobs to true", param="top_logprobs")
    if body.max_tokens is not None and body.max_completion_tokens not in (None, body.max_tokens):
        raise BadRequest(
            "max_tokens is the old name of max_completion_tokens, and the two differ: leave max_tokens out",
            param="max_tokens",
        )
    if served.tokenizer is None:
        for name in ("logprobs", "answer_room"):
            if getattr(body, name):
                raise Unsupported(
                    name, f"not available for {served.name!r}, which runs on another server: leave it out"
                )


def _tool_choice(body: ChatRequest) -> tuple[str | None, str | None]:
    """(a word, the name of a tool)."""
    choice = body.tool_choice
    return (None, choice.function.name) if isinstance(choice, NamedChatTool) else (choice, None)


def _grammar(body: ChatRequest) -> Grammar | None:
    wanted = body.response_format
    if body.regex is not None:
        if wanted is not None and wanted.type != "text":
            raise BadRequest(
                "regex and response_format both set the form of the answer: give one of them", param="regex"
            )
        return Regex(body.regex)
    if wanted is None or wanted.type == "text":
        return None
    return JsonSchema(ANY_OBJECT if wanted.type == "json_object" else json.dumps(wanted.json_schema.schema_))


def read_chat_messages(messages: Sequence[object], format: Format | None) -> tuple[Message, ...]:
    """Instructions that stand together at the beginning become one message, joined by a blank line. Later ones stay in
    their place if the model's format can express that.

    Raises BadRequest."""
    calls: dict[str, str] = {}
    out: list[Message] = []
    instructions: list[str] = []  # that follow the first message, and belong to it
    for index, message in enumerate(messages):
        read = _message(index, message, calls)
        read = replace(read, role=instructing_role(read.role, format))
        instructs = read.role in (Role.SYSTEM, Role.DEVELOPER)
        if instructs and len(out) == 1 and out[0].role in (Role.SYSTEM, Role.DEVELOPER):
            if read.name != out[0].name:
                raise BadRequest(
                    f"messages[{index}]: system and developer messages in a row are joined into one, and "
                    "these have different names: give them one name, or none",
                    param=f"messages[{index}].name",
                )
            instructions.append(read.text)
        elif instructs and out:
            check_late_instructions(format, f"messages[{index}]", f"messages[{index}]")
            out.append(read)
        elif read.role is Role.TOOL and out and out[-1].role is Role.TOOL:
            out[-1] = replace(out[-1], parts=(*out[-1].parts, *read.parts))
        else:
            out.append(read)
    if instructions:
        out[0] = replace(out[0], parts=(Text("\n\n".join((out[0].text, *instructions))),))
    return tuple(results_in_order(out))


def _message(index: int, message: object, calls: dict[str, str]) -> Message:
    text = _text(message.content)  # type: ignore[attr-defined]
    if isinstance(message, ToolMessage):
        if message.tool_call_id not in calls:
            raise BadRequest(
                f"messages[{index}] answers the call {message.tool_call_id[:100]!r}, which no earlier message makes",
                param=f"messages[{index}].tool_call_id",
            )
        return Message(Role.TOOL, (ToolResult(calls[message.tool_call_id], text, message.tool_call_id),))
    parts: tuple[Part, ...] = (Text(text),)
    if isinstance(message, AssistantMessage):
        made = tuple(_calls(message))
        calls |= {call.id: call.name for call in made if call.id}
        if message.reasoning and message.reasoning_content not in (None, message.reasoning):
            raise BadRequest(
                f"messages[{index}]: reasoning and reasoning_content mean the same: give one of them",
                param=f"messages[{index}].reasoning_content",
            )
        thought, refused = message.reasoning or message.reasoning_content, _refusal(message)
        said = (Text(text),) if text or not (made or refused) else ()
        declined = (Text(refused, refusal=True),) if refused else ()
        parts = (*((Reasoning(thought),) if thought else ()), *said, *declined, *made)
    return Message(Role(message.role), parts, message.name)  # type: ignore[attr-defined]


def _calls(message: AssistantMessage) -> Iterator[ToolCall]:
    for call in message.tool_calls or ():
        yield ToolCall(call["function"]["name"], call["function"]["arguments"], call["id"])


def _text(content: str | list[TextPart | ChatRefusal] | None) -> str:
    if isinstance(content, list):
        return "".join(part.text for part in content if isinstance(part, TextPart))
    return content or ""


def _refusal(message: AssistantMessage) -> str:
    parts = message.content if isinstance(message.content, list) else []
    return (message.refusal or "") + "".join(part.refusal for part in parts if isinstance(part, ChatRefusal))


# Out ------------------------------------------------------------------------------------------------------------------


class ChatWriter:
    """One answer: its id, its model, and how it is shown."""

    def __init__(self, body: ChatRequest, served: Served) -> None:
        self._body = body
        self._tokenizer = served.tokenizer
        self._number = secrets.token_hex(12)
        self._head: ChatHead = {
            "id": f"chatcmpl-{self._number}",
            "created": int(time.time()),
            "model": served.name,
            "system_fingerprint": served.fingerprint,
            "service_tier": "default",
        }
        self.reasoning_field = None if body.reasoning_format == "hidden" else body.reasoning_format

    def whole(self, completions: Sequence[Completion]) -> ChatCompletion:
        answer: ChatCompletion = {
            **self._head,
            "object": "chat.completion",
            "choices": [self._choice(index, each) for index, each in enumerate(completions)],
            "usage": completion_usage(completions),
        }
        if dropped := completions[0].dropped_turns:
            answer["dropped_turns"] = dropped
        return answer

    def chunk(self, choices: list[ChunkChoice]) -> ChatChunk:
        """A chunk; with a null where the last one is the bill."""
        chunk: ChatChunk = {**self._head, "object": "chat.completion.chunk", "choices": choices}
        if self._body.include_usage:
            chunk["usage"] = None
        return chunk

    def bill(self, completions: Iterable[Completion]) -> ChatChunk:
        """The chunk that ends a stream where it was asked for."""
        return {**self.chunk([]), "usage": completion_usage(completions)}

    def _choice(self, index: int, completion: Completion) -> ChatChoice:
        calls, said, refused = self.calls(index, completion), completion.message.answer, completion.message.refusal
        message: AnswerMessage = {
            "role": "assistant",
            "content": said if said or not (calls or refused) else None,
            "refusal": refused or None,
        }
        if self.reasoning_field is not None:
            message[self.reasoning_field] = completion.reasoning or None
        if calls:
            message["tool_calls"] = calls
        return {
            "index": index,
            "message": message,
            "finish_reason": finish_reason(completion),
            "logprobs": self._logprobs(completion),
        }

    def calls(self, index: int, completion: Completion) -> list[ChatCall]:
        made = [part for part in completion.message.parts if isinstance(part, ToolCall)]
        return [self.call(index, number, call.name, call.arguments, call.id) for number, call in enumerate(made)]

    def call(self, index: int, number: int, name: str, arguments: str, id: str | None) -> ChatCall:
        """Call `number` of choice `index`. Its id is the sampler's, or else the same each time."""
        own = f"call_{self._number}_{index}_{number}"
        return {"id": id or own, "type": "function", "function": {"name": name, "arguments": arguments}}

    def _logprobs(self, completion: Completion) -> ChatLogprobs | None:
        """Of the tokens of the visible answer."""
        tokenizer = self._tokenizer
        if not self._body.logprobs or tokenizer is None or completion.segment is None:
            return None
        return {"content": answer_logprobs(completion.segment, completion.text, tokenizer), "refusal": None}

    def piece_logprobs(self, tokens: Iterable[SampledToken]) -> ChatLogprobs | None:
        """Of the tokens of a streamed piece."""
        tokenizer = self._tokenizer
        if tokenizer is None:
            return None
        return {"content": [token_logprob(token, tokenizer) for token in tokens], "refusal": None}


class Chunks:
    """A stream as choices of chunks, in the order of the API.

    Each choice has the role, then pieces of thinking (where they are shown), content with its log-probabilities, calls,
    and the reason for its end.

    done: the completions that have ended.
    """

    def __init__(self, writer: ChatWriter) -> None:
        self.done: list[Completion] = []
        self._writer = writer
        self._begun: set[int] = set()
        self._calls: Counter[int] = Counter()  # how many were sent, by choice

    def choices(self, piece: Streamed) -> Iterator[ChunkChoice]:
        """One chunk each."""
        if piece.index not in self._begun:
            self._begun.add(piece.index)
            nothing = None if isinstance(piece, Delta) and piece.refusal else ""
            yield _chunk(piece.index, {"role": "assistant", "content": nothing, "refusal": None})
        if isinstance(piece, Done):
            yield from self._ending(piece)
        elif isinstance(piece, CallDelta):
            yield from self._call(piece)
        else:
            yield from self._text(piece)

    def _text(self, piece: Delta) -> Iterator[ChunkChoice]:
        said: Literal["refusal", "content"] = "refusal" if piece.refusal else "content"
        field = self._writer.reasoning_field if piece.phase is Phase.THINK else said
        if field is None or not piece.text:
            return
        chunk = _chunk(piece.index, {})
        chunk["delta"][field] = piece.text
        if piece.voice is not None:
            chunk["delta"]["voice"] = piece.voice
        if piece.tokens:
            chunk["logprobs"] = self._writer.piece_logprobs(piece.tokens)
        yield chunk

    def _call(self, piece: CallDelta) -> Iterator[ChunkChoice]:
        """Id and name in one chunk, then the arguments."""
        if piece.name is not None:
            self._calls[piece.index] += 1
            begun = self._writer.call(piece.index, piece.call, piece.name, "", piece.id)
            yield _call_chunk(piece.index, {"index": piece.call, **begun})
        if piece.arguments:
            yield _call_chunk(piece.index, {"index": piece.call, "function": {"arguments": piece.arguments}})

    def _ending(self, piece: Done) -> Iterator[ChunkChoice]:
        self.done.append(piece.completion)
        for number, call in enumerate(self._writer.calls(piece.index, piece.completion)):
            if number >= self._calls[piece.index]:  # a sampler may keep them to the end
                yield _call_chunk(piece.index, {"index": number, **call})
        yield {**_chunk(piece.index, {}), "finish_reason": finish_reason(piece.completion)}


def _call_chunk(index: int, call: IndexedCall | CallChunk) -> ChunkChoice:
    return _chunk(index, {"tool_calls": [call]})


def _chunk(index: int, delta: ChatDelta) -> ChunkChoice:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
