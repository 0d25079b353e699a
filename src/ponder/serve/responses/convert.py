"""A request for a response as an ask: its fields, its items as they are kept, and the messages that they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard, cast
from weakref import WeakKeyDictionary

from ponder.dialogue.format import Format
from ponder.dialogue.messages import (
    INSTRUCTING,
    Message,
    Part,
    Reasoning,
    ReasoningPolicy,
    Role,
    Text,
    ToolCall,
    ToolResult,
)
from ponder.sampler.protocol import Grammar, JsonSchema, NextTurn, Truncation
from ponder.serve.common.convert import (
    ANY_OBJECT,
    check_late_instructions,
    instructing_role,
    offered,
    read_answer_room,
    read_deadline,
    read_parallel_calls,
    read_seed,
    read_temperature,
    read_thinking,
    read_tool_choice,
    read_tools,
    results_in_order,
    tenant,
)
from ponder.serve.common.wire import TokenLogprob
from ponder.serve.errors import BadRequest, Unsupported
from ponder.serve.models import Served
from ponder.serve.responses.items import (
    AnyItem,
    CallItem,
    CallOutputItem,
    GivenItem,
    InputText,
    ItemReference,
    OutputText,
    ReasoningItem,
    RefusalPart,
)
from ponder.serve.responses.seal import Foreign, Sealer
from ponder.serve.responses.wire import (
    ConversationName,
    NamedResponseTool,
    RemovedReasoning,
    ResponseRequest,
    ResponseSchemaFormat,
)
from ponder.serve.settings import Settings
from ponder.serve.store import StoredItem
from ponder.think.ask import Ask
from ponder.tokenizer import Tokenizer

LOGPROBS = "message.output_text.logprobs"
PRO_SAMPLES = 8
PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc", "function_call_output": "fco"}

_VOCABULARIES: WeakKeyDictionary[Tokenizer, str] = WeakKeyDictionary()


def conversation_of(asked: ResponseRequest) -> str | None:
    named = asked.conversation
    return named.id if isinstance(named, ConversationName) else named


def is_stored(asked: ResponseRequest) -> bool:
    return asked.store is not False


def effort_of(asked: ResponseRequest) -> str | None:
    return asked.reasoning.effort if asked.reasoning else None


def is_pro(asked: ResponseRequest) -> bool:
    return asked.reasoning is not None and asked.reasoning.mode == "pro"


def check_response(asked: ResponseRequest, sealer: Sealer | None) -> None:
    """Raises BadRequest naming the field that does not go with the others."""
    if asked.previous_response_id is not None and conversation_of(asked) is not None:
        raise BadRequest(
            "previous_response_id and conversation both set what came before: give one of them",
            param="previous_response_id",
        )
    if asked.background and not is_stored(asked):
        raise BadRequest("background: a background response must be stored: set store to true", param="background")
    if conversation_of(asked) is not None and not is_stored(asked):
        raise BadRequest("conversation: a response of a conversation must be stored: set store to true", param="store")
    if asked.stream_options is not None and not asked.stream:
        raise BadRequest("stream_options is given without stream: set stream to true", param="stream_options")
    include = asked.include or ()
    if asked.top_logprobs and LOGPROBS not in include:
        raise BadRequest(f"top_logprobs is given without include: set include to ['{LOGPROBS}']", param="top_logprobs")
    if "reasoning.encrypted_content" in include and sealer is None:
        raise Unsupported(
            "include", "this server does not encrypt reasoning: ask its operator to install `cryptography`"
        )


def read_policy(asked: ResponseRequest) -> ReasoningPolicy:
    wanted = asked.reasoning.context if asked.reasoning else None
    return ReasoningPolicy.ALL_TURNS if wanted == "all_turns" else ReasoningPolicy.CURRENT_TURN


def read_strategy(asked: ResponseRequest, served: Served, settings: Settings) -> str | None:
    """The strategy that the request names: mode "pro" is one. Raises BadRequest."""
    if asked.strategy is None and is_pro(asked):
        if served.strategy is not None:
            raise Unsupported("reasoning.mode", f"the model {served.name!r} has its own strategy: leave it out")
        return f"consensus(samples={min(PRO_SAMPLES, settings.samples)})"
    return asked.strategy


def read_response(
    asked: ResponseRequest, messages: tuple[Message, ...], served: Served, settings: Settings, owner: str
) -> Ask:
    """messages: what came before, and the request's own. Raises BadRequest naming the field that cannot be served."""
    effort, thinking = read_thinking(effort_of(asked), asked.thinking_token_budget, named="reasoning.effort")
    tools = read_tools({"type": "function", "function": _function(tool)} for tool in _dumped(offered(asked.tools)))
    if not tools and asked.tool_choice not in (None, "auto", "none"):
        raise BadRequest("tool_choice is given without tools: add tools, or leave it out", param="tool_choice")
    choice = asked.tool_choice if tools else None
    named = choice.name if isinstance(choice, NamedResponseTool) else None
    logprobs = LOGPROBS in (asked.include or ())
    if served.tokenizer is None:
        for name, value in (("include", logprobs), ("answer_room", asked.answer_room)):
            if value:
                raise Unsupported(
                    name, f"not available for {served.name!r}, which runs on another server: leave it out"
                )
    return Ask(
        prompt=messages,
        effort=effort,
        thinking=thinking,
        answer_room=read_answer_room(asked.answer_room, asked.max_output_tokens),
        max_tokens=asked.max_output_tokens,
        temperature=read_temperature(asked.temperature, served),
        top_p=asked.top_p,
        seed=read_seed(asked.seed),
        top_logprobs=asked.top_logprobs or 0,
        logprobs=logprobs,
        grammar=_grammar(asked),
        tools=tools,
        tool_choice=read_tool_choice(choice if isinstance(choice, str) else None, named, tools),
        parallel_calls=read_parallel_calls(asked.parallel_tool_calls if tools else None),
        policy=read_policy(asked),
        truncation=Truncation(asked.truncation or "disabled"),
        deadline=read_deadline(asked.deadline, settings),
        next_turn=NextTurn.VERBATIM if is_stored(asked) else NextTurn.TEXT,
        tenant=tenant(owner, asked.prompt_cache_key, served),
    )


def _dumped(tools: Sequence[Any] | None) -> list[dict[str, Any]]:
    return [tool.model_dump(mode="json") for tool in tools or ()]


def _function(tool: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tool[name] for name in ("name", "description", "parameters", "strict")}


def _grammar(asked: ResponseRequest) -> Grammar | None:
    wanted = asked.text.format if asked.text else None
    if wanted is None or wanted.type == "text":
        return None
    return JsonSchema(json.dumps(wanted.schema_) if isinstance(wanted, ResponseSchemaFormat) else ANY_OBJECT)


# Items ----------------------------------------------------------------------------------------------------------------


def item_id(kind: str, response_id: str, place: int, *, given: bool = False) -> str:
    """The id of item `place` of a response's output, or (given) of its input. It names its response."""
    number = response_id.partition("_")[2]
    return f"{PREFIXES[kind]}_{number}_{'in' if given else ''}{place}"


def response_of(id: str) -> str | None:
    """The response whose output, or input, holds the item `id`; None: the item is not from this server."""
    number, mark, place = id.partition("_")[2].rpartition("_")
    return f"resp_{number}" if mark and place.removeprefix("in").isdigit() else None


def references(request: ResponseRequest) -> list[str]:
    """The ids of the items that a request names instead of repeating them."""
    items = request.input if isinstance(request.input, list) else []
    return [item["id"] for item in items if is_reference(item)]


def is_reference(item: GivenItem | ItemReference) -> TypeGuard[ItemReference]:
    bare = item.get("type") is None and item.get("role") is None
    return item.get("type") == "item_reference" or ("id" in item and bare)


def input_items(request: ResponseRequest, response_id: str, named: Mapping[str, StoredItem]) -> list[StoredItem]:
    """The items of a request, with ids. They are kept and listed so.

    named: those that it refers to; what is not among them stands in its history already.
    """
    if request.input is None:
        return []
    if isinstance(request.input, str):
        return [given_item({"role": "user", "content": request.input}, response_id, 0)]
    items: list[StoredItem] = []
    for place, item in enumerate(request.input):
        if not is_reference(item):
            items.append(given_item(cast(GivenItem, item), response_id, place))
        elif item["id"] in named:
            items.append(named[item["id"]])
    return items


def given_item(item: GivenItem, owner_id: str, place: int) -> StoredItem:
    """An item that a client sent, with its id, or one made from that of the object it is sent to."""
    kind = item.get("type") or "message"
    id, status = item.get("id") or item_id(kind, owner_id, place, given=True), item.get("status") or "completed"
    fields = cast(Mapping[str, Any], item)  # those of its kind, which the request's model has checked
    body: AnyItem
    match kind:
        case "message":
            body = {"id": id, "type": "message", "role": fields["role"], "content": _content(fields), "status": status}
        case "reasoning":
            shown = {name: fields[name] for name in ("content", "encrypted_content") if fields.get(name) is not None}
            summary = fields.get("summary") or []
            body = cast(ReasoningItem, {"id": id, "type": kind, "summary": summary, **shown, "status": status})
        case "function_call":
            said = {name: fields[name] for name in ("call_id", "name", "arguments")}
            body = cast(CallItem, {"id": id, "type": kind, **said, "status": status})
        case _:
            said = {name: fields[name] for name in ("call_id", "output")}
            body = cast(CallOutputItem, {"id": id, "type": kind, **said, "status": status})
    return StoredItem(id, body)


def _content(message: Mapping[str, Any]) -> list[InputText | OutputText | RefusalPart]:
    content = message["content"]
    if message["role"] != "assistant":
        return [{"type": "input_text", "text": text} for text in _texts(content)]
    parts = [{"text": content}] if isinstance(content, str) else content
    return [refusal_part(part["refusal"]) if "refusal" in part else output_text(part["text"]) for part in parts]


def _texts(content: str | Sequence[Mapping[str, Any]]) -> list[str]:
    return [content] if isinstance(content, str) else [part["text"] for part in content]


def output_text(text: str, logprobs: Sequence[TokenLogprob] = ()) -> OutputText:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(logprobs)}


def refusal_part(text: str) -> RefusalPart:
    return {"type": "refusal", "refusal": text}


# The messages that they are -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PastTurns:
    """The turns before a request, as the model is given them.

    messages: what the model is given.
    removed: reasoning items that it is not given, and why.
    """

    messages: tuple[Message, ...]
    removed: tuple[RemovedReasoning, ...]


@dataclass(frozen=True, slots=True)
class ItemReader:
    """Reads items as messages, for one request.

    owner, served: whose and which model's reasoning may be used.
    sealer: opens sealed reasoning; None: there is none.
    """

    owner: str
    served: Served
    policy: ReasoningPolicy
    sealer: Sealer | None

    def read(self, instructions: str | None, items: Sequence[StoredItem]) -> PastTurns:
        """Raises BadRequest naming the item that cannot stand where it does."""
        last_user = max((place for place, item in enumerate(items) if item.body.get("role") == "user"), default=-1)
        builder = _Builder(self.served.capabilities.format)
        if instructions is not None:
            builder.instruct(Role.SYSTEM, instructions, "instructions")
        removed: list[RemovedReasoning] = []
        for place, item in enumerate(items):
            if item.body["type"] != "reasoning":
                self._add(builder, item)
                continue
            past = self.policy is ReasoningPolicy.CURRENT_TURN and place < last_user
            parts = Foreign.TURN if past else self._thoughts(item)
            if isinstance(parts, Foreign):
                removed.append({"id": item.id, "type": "reasoning", "action": "removed", "reason": parts.value})
            else:
                builder.say(parts)
        return PastTurns(builder.finish(), tuple(removed))

    def _thoughts(self, item: StoredItem) -> tuple[Part, ...] | Foreign:
        """The thoughts of a reasoning item, or why they are not to be used."""
        if item.hidden is not None:
            if item.hidden["model"] != self.served.name:
                return Foreign.MODEL
            return self._kept(item)
        sealed, content = item.body.get("encrypted_content"), item.body.get("content")
        if sealed is None and content is None:
            raise BadRequest(
                f"the reasoning item '{item.id}' is empty, and its content is not stored here: request "
                "include: ['reasoning.encrypted_content'] and send the item back whole, or leave it out",
                param="input",
                code="invalid_value",
            )
        if sealed is None:
            return tuple(Reasoning(part["text"]) for part in content or () if part["text"])
        if self.sealer is None:
            raise BadRequest("this server does not encrypt reasoning: leave encrypted_content out", param="input")
        opened = self.sealer.open(self.owner, self.served.name, item.id, sealed)
        return opened if isinstance(opened, Foreign) else read_parts(opened, keep_ids=False)

    def _kept(self, item: StoredItem) -> tuple[Part, ...]:
        assert item.hidden is not None
        same = item.hidden["vocabulary"] is not None and item.hidden["vocabulary"] == vocabulary_of(self.served)
        return read_parts(item.hidden["parts"], keep_ids=same)

    def _add(self, builder: _Builder, item: StoredItem) -> None:
        body, where = item.body, f"item '{item.id}'"
        match body["type"]:
            case "message" if body["role"] == "assistant":
                builder.say(self._kept(item) if item.hidden else _said(body["content"]))
            case "message" if body["role"] == "user":
                builder.add(Message.user(_text(body["content"])))
            case "message":
                builder.instruct(Role(body["role"]), _text(body["content"]), where)
            case "function_call":
                call = ToolCall(body["name"], body["arguments"], body["call_id"])
                builder.say(self._kept(item) if item.hidden else (call,))
            case _:
                builder.answer(body["call_id"], _text(body["output"]), where)


def _said(content: Sequence[Mapping[str, Any]]) -> tuple[Text, ...]:
    """What an answer says, and what of it is a refusal."""
    refused = "".join(part["refusal"] for part in content if "refusal" in part)
    text = "".join(part["text"] for part in content if "text" in part)
    declined = (Text(refused, refusal=True),) if refused else ()
    return (*((Text(text),) if text or not refused else ()), *declined)


def _text(content: str | Sequence[Mapping[str, Any]]) -> str:
    return "".join(_texts(content))


class _Builder:
    """Messages from items: neighbouring items of the assistant are one message, and so are neighbouring results."""

    def __init__(self, format: Format | None) -> None:
        self._format = format
        self._messages: list[Message] = []
        self._instructions: list[str] = []  # of the first message
        self._calls: dict[str, str] = {}  # names by id

    def instruct(self, role: Role, text: str, where: str) -> None:
        """Instructions that stand together at the beginning become one message, joined by a blank line."""
        role = instructing_role(role, self._format)
        if not self._messages:
            self._messages.append(Message(role, (Text(text),)))
        elif len(self._messages) > 1 or self._messages[0].role not in INSTRUCTING:
            check_late_instructions(self._format, where, "input")
            self._messages.append(Message(role, (Text(text),)))
            return
        self._instructions.append(text)

    def add(self, message: Message) -> None:
        self._messages.append(message)

    def say(self, parts: Sequence[Part]) -> None:
        """Add what the assistant thinks, says or calls."""
        last = self._messages[-1] if self._messages else None
        if last is not None and last.role is Role.ASSISTANT:
            self._messages[-1] = replace(last, parts=(*last.parts, *parts))
        else:
            self._messages.append(Message(Role.ASSISTANT, tuple(parts)))
        self._calls |= {part.id: part.name for part in parts if isinstance(part, ToolCall) and part.id}

    def answer(self, call_id: str, output: str, where: str) -> None:
        """Add the result of a call."""
        if call_id not in self._calls:
            raise BadRequest(
                f"{where} answers the call {call_id[:100]!r}, which no earlier item makes",
                param="input",
                code="invalid_value",
            )
        result = ToolResult(self._calls[call_id], output, call_id)
        last = self._messages[-1]
        if last.role is Role.TOOL:
            self._messages[-1] = replace(last, parts=(*last.parts, result))
        else:
            self._messages.append(Message(Role.TOOL, (result,)))

    def finish(self) -> tuple[Message, ...]:
        if self._instructions:
            self._messages[0] = replace(self._messages[0], parts=(Text("\n\n".join(self._instructions)),))
        return tuple(results_in_order(self._messages))


def read_parts(written: Sequence[Mapping[str, Any]], *, keep_ids: bool) -> tuple[Part, ...]:
    """The inverse.

    keep_ids: whether they are ids of the tokenizer that will read them.
    """
    return tuple(_read(each, tuple(each["ids"]) if keep_ids and "ids" in each else None) for each in written)


def _read(written: Mapping[str, Any], ids: tuple[int, ...] | None) -> Part:
    match written["type"]:
        case "text":
            return Text(written["text"], ids, bool(written.get("refusal")))
        case "reasoning":
            return Reasoning(written["text"], ids, bool(written.get("state")))
        case _:
            return ToolCall(written["name"], written["arguments"], written["id"], ids)


def vocabulary_of(served: Served) -> str | None:
    """What tells one tokenizer's ids from another's; None: the model gives no ids."""
    tokenizer = served.tokenizer
    if tokenizer is not None and tokenizer not in _VOCABULARIES:
        spec = json.dumps(dict(tokenizer.spec), sort_keys=True, default=str)
        _VOCABULARIES[tokenizer] = hashlib.sha256(spec.encode()).hexdigest()[:16]
    return None if tokenizer is None else _VOCABULARIES[tokenizer]
