"""A sampler that says what a script tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import cast

from ponder.dialogue.messages import Conversation
from ponder.sampler.protocol import (
    AT_ONCE,
    CallDelta,
    Capabilities,
    Completion,
    Delivery,
    Delta,
    Done,
    Request,
    Streamed,
    check_request,
    estimated_tokens,
)
from ponder.sampler.replies import until
from ponder.testing.script import Prompter, Script, Spoken, check_calls, count_prompt, speak, words
from ponder.types import InvalidRequest, Phase, SamplerError, TopLogprobs, Usage


class ScriptedSampler:
    """Keeps every contract of `Sampler` on a script: a list of answers, or a function (conversation, index) -> answer.

    Tokens are words; the thinking cap, the answer's room, max_tokens and stop strings hold as they do in the engine.
    requests: what was asked so far. What would need a model or its ids is refused by name: floors and confidence, stop
    ids, biases, log-probabilities, grammars, ids as a prompt. `seconds` is kept; a completion that it cuts has no bill.
    Nothing is cached, so any tenant is served and `next_turn` changes nothing. Calls are the script's: a line that does
    not keep `tool_choice` or `parallel_calls` is a SamplerError.
    """

    def __init__(
        self, script: Script, *, name: str = "scripted", window: int = 4096, thinking_tokens: int | None = None
    ) -> None:
        """thinking_tokens: see `Capabilities`."""
        self.requests: list[Request] = []
        self._prompter = Prompter(script)
        self._name = name
        self._capabilities = Capabilities(window=window, thinking_tokens=thinking_tokens)
        self._closed = False

    @property
    def name(self) -> str:
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    async def sample(self, request: Request) -> list[Completion]:
        done = {each.index: each.completion async for each in self.stream(request) if isinstance(each, Done)}
        return [done[index] for index in range(request.n)]

    async def stream(self, request: Request, delivery: Delivery = AT_ONCE) -> AsyncGenerator[Streamed, None]:
        self._check(request)
        self.requests.append(request)
        deadline = None if request.seconds is None else asyncio.get_running_loop().time() + request.seconds
        async with aclosing(self._said(request)) as said, aclosing(until(said, request.n, deadline)) as events:
            async for event in events:
                if isinstance(event, Done):
                    delivery.end()
                elif not delivery.deltas:
                    continue
                yield event

    async def _said(self, request: Request) -> AsyncGenerator[Streamed, None]:
        conversation = cast(Conversation, request.prompt)
        params = request.params
        for index in range(request.n):
            say = self._prompter.next(conversation, index)
            check_calls(say, request)
            spoken = speak(
                say,
                max_tokens=params.max_tokens,
                thinking=params.thinking,
                answer_room=params.answer_room,
                stop=request.stop,
            )
            pieces = [(Phase.THINK, word) for word in spoken.reasoning] + [(Phase.ANSWER, word) for word in spoken.text]
            for phase, word in pieces:
                await asyncio.sleep(say.seconds / len(pieces))
                yield Delta(index, phase, word)
            for number, call in enumerate(spoken.calls):
                yield CallDelta(index, number, call.name, "", call.id)
                for word in words(call.arguments):
                    yield CallDelta(index, number, None, word)
            yield Done(index, _completion(spoken, count_prompt(conversation) if index == 0 else 0))

    async def score(self, ids: Sequence[int], top: int = 0) -> tuple[list[float], list[TopLogprobs]]:
        raise InvalidRequest("a scripted sampler has no log-probabilities")

    def gather(self, requests: int) -> None:
        """Nothing is held back here."""

    async def count(self, prompt: Conversation | tuple[int, ...]) -> int:
        return estimated_tokens(prompt)

    async def stats(self) -> None:
        return None

    async def close(self) -> None:
        self._closed = True

    def _check(self, request: Request) -> None:
        if self._closed:
            raise SamplerError(f"sampler '{self._name}' is closed: make a new one")
        check_request(request)
        if isinstance(request.prompt[0], int):
            raise InvalidRequest("a scripted sampler needs a conversation, not ids")
        refused = {
            "a floor on thinking": request.params.thinking.floor,
            "a confidence at which thinking stops": request.params.thinking.confidence,
            "stop_ids": request.params.stop_ids,
            "logit_bias": request.params.logit_bias,
            "top_logprobs": request.params.top_logprobs,
            "grammar": request.grammar,
            "effort": request.effort,
        }
        named = [name for name, value in refused.items() if value]
        if named:
            raise InvalidRequest(f"a scripted sampler cannot express: {', '.join(named)}")


def _completion(spoken: Spoken, prompt_tokens: int) -> Completion:
    usage = Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=spoken.completion_tokens,
        reasoning_tokens=spoken.reasoning_tokens,
    )
    return Completion(message=spoken.message(), stop_reason=spoken.stop_reason, usage=usage)
