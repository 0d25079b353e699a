"""`/v1/score`, in vLLM's shape and under its path too: what a reward model thinks of answers."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request as HttpRequest

from ponder.dialogue.messages import Message, Role
from ponder.serve.chat.convert import read_chat_messages
from ponder.serve.chat.wire import ChatMessage
from ponder.serve.common.wire import LongText, Name, Strict
from ponder.serve.errors import BadRequest, NotFound
from ponder.serve.http.exchange import ServerState, state_of
from ponder.tasks.verifiers.reward import RewardModel
from ponder.types import FormatError, WindowExceeded

router = APIRouter()
MOST_SCORED = 256  # answers in one request

Texts = LongText | Annotated[list[LongText], Field(min_length=1, max_length=MOST_SCORED, fail_fast=True)]


class ScoreRequest(Strict):
    """Answers to score.

    text_1, text_2: a prompt and its answer, or several: one prompt to all answers, or one to each.
    messages: a conversation whose last message is the answer.
    model: may be left out where there is one reward model.
    """

    model: Name | None = None
    text_1: Texts | None = None
    text_2: Texts | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=2, max_length=4096, fail_fast=True)] | None = None


class Score(BaseModel):
    """score: 0 is the mean of the answers that the reward model was scaled by, 1 their deviation."""

    index: int
    object: Literal["score"] = "score"
    score: float


class ScoreUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int
    completion_tokens: int = 0


class Scores(BaseModel):
    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[Score]
    usage: ScoreUsage


@router.post("/v1/score")
@router.post("/score", include_in_schema=False)
def score(body: ScoreRequest, http: HttpRequest) -> Scores:
    """The reward of each answer."""
    name, reward = _reward(state_of(http), body.model)
    read = []
    for prompt, answer in _conversations(body, reward):
        try:
            read.append(reward.read(prompt, [answer]))
        except (WindowExceeded, FormatError) as error:
            raise BadRequest(str(error), param="messages" if body.messages else "text_2") from error
    tokens = sum(length for _, length in read)
    return Scores(
        id=f"score-{uuid.uuid4().hex}",
        created=int(time.time()),
        model=name,
        data=[Score(index=index, score=value) for index, (value, _) in enumerate(read)],
        usage=ScoreUsage(prompt_tokens=tokens, total_tokens=tokens),
    )


def _reward(state: ServerState, name: str | None) -> tuple[str, RewardModel]:
    """Raises NotFound, BadRequest."""
    rewards = state.rewards
    if not rewards:
        raise NotFound("this server has no reward model: start it with --reward NAME=FOLDER", param="model")
    if name is None:
        if len(rewards) > 1:
            raise BadRequest(f"model is missing: choose from {', '.join(rewards)}", param="model")
        return next(iter(rewards.items()))
    if name not in rewards:
        raise NotFound(
            f"there is no reward model {name[:100]!r} here: choose from {', '.join(rewards)}",
            param="model",
            code="model_not_found",
        )
    return name, rewards[name]


def _conversations(body: ScoreRequest, reward: RewardModel) -> list[tuple[Sequence[Message], Message]]:
    """(prompt, answer) of each thing to score. Raises BadRequest."""
    texts = (body.text_1, body.text_2)
    if (body.messages is None) == (texts == (None, None)):
        raise BadRequest("give text_1 and text_2, or messages, and not both", param="text_1")
    if body.messages is not None:
        messages = read_chat_messages(body.messages, reward.format)
        if messages[-1].role is not Role.ASSISTANT or not messages[-1].text.strip():
            raise BadRequest("the last message must be the assistant's, and not empty", param="messages")
        return [(messages[:-1], messages[-1])]
    if body.text_1 is None or body.text_2 is None:
        raise BadRequest("text_1 is the prompt and text_2 the answer: give both", param="text_1")
    prompts, answers = ([each] if isinstance(each, str) else each for each in (body.text_1, body.text_2))
    if len(prompts) == 1:
        prompts = prompts * len(answers)
    if len(prompts) != len(answers):
        raise BadRequest(
            f"text_1 must be one prompt, or as many as text_2 (got {len(prompts)} and {len(answers)})", param="text_1"
        )
    if not all(answer.strip() for answer in answers):
        raise BadRequest("an answer must not be empty", param="text_2")
    return [
        ([Message.user(prompt)], Message.assistant(answer)) for prompt, answer in zip(prompts, answers, strict=True)
    ]
