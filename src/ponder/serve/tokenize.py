"""`/v1/tokenize` and `/v1/detokenize`, in vLLM's shape and under its paths too: the ids of a prompt."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request as HttpRequest

from ponder.dialogue import Start
from ponder.dialogue.format import Format
from ponder.engine.requests import check_ids
from ponder.serve.chat.convert import read_chat_messages
from ponder.serve.chat.wire import ChatMessage
from ponder.serve.common.wire import MOST_VALUES, Efforts, LongText, Name, Strict, TokenId
from ponder.serve.errors import BadRequest, Unsupported
from ponder.serve.http.exchange import ServerState, state_of
from ponder.serve.models import Served
from ponder.tokenizer import Tokenizer

router = APIRouter()


class TokenizeRequest(Strict):
    """A text or a conversation to encode.

    prompt: text, encoded as text whatever it spells.
    messages: rendered as a chat completion would render them, with the beginning of the answer unless
        add_generation_prompt is off.
    model: may be left out where there is one.
    """

    model: Name | None = None
    prompt: LongText | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=4096, fail_fast=True)] | None = None
    reasoning_effort: Efforts | None = None
    add_generation_prompt: bool = True
    add_special_tokens: bool = False
    return_token_strs: bool = False


class Tokens(BaseModel):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeRequest(Strict):
    model: Name | None = None
    tokens: Annotated[list[TokenId], Field(max_length=MOST_VALUES, fail_fast=True)]


class Detokenized(BaseModel):
    prompt: str


@router.post("/v1/tokenize")
@router.post("/tokenize", include_in_schema=False)
def tokenize(body: TokenizeRequest, http: HttpRequest) -> Tokens:
    """The ids of a text or of a conversation."""
    served = _served(state_of(http), body.model)
    tokenizer, format = _tokens_of(served)
    if (body.prompt is None) == (body.messages is None):
        raise BadRequest("give prompt or messages, and not both", param="prompt")
    if body.add_special_tokens:
        raise Unsupported(
            "add_special_tokens",
            "a prompt is encoded without special tokens, and messages bring their own: leave it out",
        )
    if body.prompt is not None:
        ids = tokenizer.encode(body.prompt)
    else:
        ids = list(format.render(read_chat_messages(body.messages or (), format), start=_start(body, format)).ids)
    names = [tokenizer.decode([id]) for id in ids] if body.return_token_strs else None
    return Tokens(count=len(ids), max_model_len=served.capabilities.window or 0, tokens=ids, token_strs=names)


@router.post("/v1/detokenize")
@router.post("/detokenize", include_in_schema=False)
def detokenize(body: DetokenizeRequest, http: HttpRequest) -> Detokenized:
    """The text of ids; control tokens are spelled by their names."""
    tokenizer, _ = _tokens_of(_served(state_of(http), body.model))
    check_ids(body.tokens, tokenizer.vocab_size, "tokens")
    return Detokenized(prompt=tokenizer.decode(body.tokens))


def _start(body: TokenizeRequest, format: Format) -> Start:
    if not body.add_generation_prompt:
        return Start.NONE
    thinks = body.reasoning_effort != "none" and format.phase_tokens.think_close is not None
    return Start.THINK if thinks else Start.DIRECT


def _served(state: ServerState, model: str | None) -> Served:
    if model is None and len(names := [each.name for each in state.models]) != 1:
        raise BadRequest(
            f"model is missing, and this server has several: choose from {', '.join(names)}", param="model"
        )
    return state.models.get(model) if model is not None else next(iter(state.models))


def _tokens_of(served: Served) -> tuple[Tokenizer, Format]:
    """Raises Unsupported for a model whose tokens are not here."""
    tokenizer, format = served.capabilities.tokenizer, served.capabilities.format
    if tokenizer is None or format is None:
        raise Unsupported("model", f"{served.name!r} runs on another server, which has its tokens")
    return tokenizer, format
