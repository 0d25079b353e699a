"""A request for a response as what a sampler takes. What differs from chat completions in name alone is read there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ponder.dialogue.messages import ReasoningPolicy
from ponder.sampler.protocol import NextTurn, Request
from ponder.serve import work
from ponder.serve.chat.read import read_request
from ponder.serve.chat.schema import ChatRequest
from ponder.serve.errors import ApiError, unsupported
from ponder.serve.models import Served
from ponder.serve.responses.body import is_pro
from ponder.serve.responses.context import Reader
from ponder.serve.responses.events import Wire
from ponder.serve.responses.history import history, with_kept_thoughts
from ponder.serve.responses.items import Dress, input_items
from ponder.serve.responses.schema import FunctionTool, NamedTool, ResponseRequest, SchemaFormat
from ponder.serve.responses.turn import Turn
from ponder.serve.state import State
from ponder.serve.store import Item

PRO_SAMPLES = 8
RENAMED = {
    "messages": "input",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "max_completion_tokens": "max_output_tokens",
    "logprobs": "include",
}


async def read_turn(asked: ResponseRequest, owner: str, state: State, id: str, created_at: int) -> Turn:
    """Raises ApiError naming the field that cannot be served as asked."""
    served = state.models.get(asked.model)
    _check(asked, served, state)
    policy = _policy(asked)
    given, before = input_items(asked, id), await history(asked, owner, state)
    _check_ids(given, before if asked.conversation_id else [])
    items = [*before, *given]
    if not items:
        raise ApiError(400, "input: there is nothing to answer", param="input", code="missing_required_parameter")
    items = await with_kept_thoughts(items, owner, state)
    context = Reader(owner, served, policy, state.sealer).read(asked.instructions, items)
    request = _request(asked, owner, served, state, policy)
    request = replace(request, prompt=context.messages)
    named = asked.strategy or (f"consensus(samples={_pro_samples(state)})" if is_pro(asked) else None)
    effort = asked.reasoning.effort if asked.reasoning else None
    strategy = work.strategy_of(named, request, effort, state.settings)
    return Turn(
        id=id,
        owner=owner,
        served=served,
        created_at=created_at,
        asked=asked,
        work=work.Work(served=served, owner=owner, request=request, strategy=strategy),
        given=given,
        dress=_dress(asked, owner, served, state),
        removed=context.removed,
    )


def _check(asked: ResponseRequest, served: Served, state: State) -> None:
    if asked.previous_response_id is not None and asked.conversation_id is not None:
        raise ApiError(
            400,
            "previous_response_id and conversation both say what came before: give one",
            param="previous_response_id",
        )
    if asked.background and not asked.stored:
        raise ApiError(400, "background: a response that is not stored cannot be come back for", param="background")
    if asked.conversation_id is not None and not asked.stored:
        raise ApiError(400, "conversation: what is not stored cannot be added to one", param="store")
    if asked.stream_options is not None and not asked.stream:
        raise ApiError(400, "stream_options needs stream: true", param="stream_options")
    include = asked.include or ()
    if asked.top_logprobs is not None and "message.output_text.logprobs" not in include:
        raise ApiError(400, "top_logprobs needs include: ['message.output_text.logprobs']", param="top_logprobs")
    if "reasoning.encrypted_content" in include and state.sealer is None:
        raise unsupported("include", "this server does not seal reasoning: `cryptography` is not installed with it")
    if (asked.strategy or is_pro(asked)) and asked.tools:
        raise unsupported("tools", "cannot be set beside a strategy")


def _check_ids(given: Sequence[Item], kept: Sequence[Item]) -> None:
    taken = {item.id for item in kept}
    for place, item in enumerate(given):
        if item.id in taken:
            raise ApiError(
                400,
                f"input[{place}]: there is an item '{item.id}' already: send what is new, or leave its id out",
                param=f"input[{place}].id",
                code="invalid_value",
            )
        taken.add(item.id)


def _pro_samples(state: State) -> int:
    return min(PRO_SAMPLES, state.settings.samples)


def _policy(asked: ResponseRequest) -> ReasoningPolicy:
    wanted = asked.reasoning.context if asked.reasoning else None
    return ReasoningPolicy.ALL_TURNS if wanted == "all_turns" else ReasoningPolicy.CURRENT_TURN


def _dress(asked: ResponseRequest, owner: str, served: Served, state: State) -> Dress:
    """Sealed reasoning is for whom nothing is stored, and for whoever asks."""
    include = asked.include or ()
    sealed = "reasoning.encrypted_content" in include or not asked.stored
    return Dress(
        owner,
        served.name,
        shows_reasoning="reasoning.content" in include,
        sealer=state.sealer if sealed else None,
        tokenizer=served.tokenizer if "message.output_text.logprobs" in include else None,
    )


def _request(asked: ResponseRequest, owner: str, served: Served, state: State, policy: ReasoningPolicy) -> Request:
    """The sampler's request but for its prompt, read as a chat completion's is: they differ in names alone."""
    chat = {
        "model": asked.model,
        "messages": [{"role": "user", "content": ""}],
        "reasoning_effort": asked.reasoning.effort if asked.reasoning else None,
        "max_completion_tokens": asked.max_output_tokens,
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "top_logprobs": asked.top_logprobs,
        "logprobs": "message.output_text.logprobs" in (asked.include or ()) or None,
        "truncation": asked.truncation or "disabled",
        "response_format": _chat_format(asked),
        "tools": [_chat_tool(tool) for tool in asked.tools] if asked.tools else None,
        "tool_choice": _chat_choice(asked),
        "parallel_tool_calls": asked.parallel_tool_calls if asked.tools else None,
        "prompt_cache_key": asked.prompt_cache_key,
        "seed": asked.seed,
        "thinking_token_budget": asked.thinking_token_budget,
        "answer_room": asked.answer_room,
        "deadline": asked.deadline,
    }
    try:
        request = read_request(ChatRequest.model_validate(chat), served, state.settings, owner)
    except ApiError as error:
        param = RENAMED.get(error.body.param or "", error.body.param)
        raise ApiError(error.status, error.body.message, param=param, code=error.body.code) from None
    carried = NextTurn.VERBATIM if asked.stored else NextTurn.TEXT
    return replace(request, policy=policy, next_turn=carried if served.local else NextTurn.NONE)


def _chat_format(asked: ResponseRequest) -> Wire | None:
    wanted = asked.text.format if asked.text else None
    if isinstance(wanted, SchemaFormat):
        schema = wanted.model_dump(mode="json", by_alias=True, exclude={"type"})
        return {"type": "json_schema", "json_schema": schema}
    return {"type": wanted.type} if wanted is not None else None


def _chat_tool(tool: FunctionTool) -> Wire:
    return {"type": "function", "function": tool.model_dump(mode="json", exclude={"type"})}


def _chat_choice(asked: ResponseRequest) -> Any:
    """Without tools, what asks for none says nothing."""
    choice = asked.tool_choice
    if not asked.tools and choice in ("auto", "none"):
        return None
    return {"type": "function", "function": {"name": choice.name}} if isinstance(choice, NamedTool) else choice
