"""Thoughts of a model, and what the same model answers once one of them is cut or changed.

Everything is greedy, so that nothing but the change makes a difference. The part that is kept stands in the prompt as
the ids that were sampled: its pages are found in the cache.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random
from typing import TypeVar

from ponder.evaluate.measure import grade_async
from ponder.sampler.protocol import Capabilities, Completion, Sampler
from ponder.tasks.protocol import EnvironmentTask, Problem, Task
from ponder.think import Ask, AskSettings
from ponder.think.steps import ThoughtStep, steps_of
from ponder.tokenizer import Tokenizer
from ponder.types import InvalidRequest, Phase, PhaseTokens, ThinkingLimits

ANSWER_TOKENS = 128
"""The longest answer that is read after a thought was cut or changed."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reply:
    """What came out: the visible answer, and whether the task accepts it."""

    answer: str
    solved: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Thought:
    """One problem, thought about once, and the reply that followed."""

    task: Task
    problem: Problem
    completion: Completion
    reply: Reply


class Thinker:
    """A local model that thinks, continues thoughts, and answers after them.

    settings: how long to think; greedy all the same.
    Raises InvalidRequest with `no_thinking`'s reason where there is one.
    """

    def __init__(self, sampler: Sampler, settings: AskSettings | None = None) -> None:
        reason = no_thinking(sampler)
        if reason:
            raise InvalidRequest(f"the thinking of {sampler.name} cannot be audited: {reason}")
        tokenizer, format = sampler.capabilities.tokenizer, sampler.capabilities.format
        assert tokenizer is not None
        assert format is not None
        assert format.phase_tokens.think_close is not None
        self.sampler, self.tokenizer, self.format = sampler, tokenizer, format
        self.tokens = format.phase_tokens
        self.close: int = format.phase_tokens.think_close
        self.settings: AskSettings = {"effort": "high", **(settings or {}), "temperature": 0.0}
        if self.settings.get("thinking") is not None:
            self.settings["effort"] = None

    @property
    def capabilities(self) -> Capabilities:
        return self.sampler.capabilities

    async def think(self, task: Task, problem: Problem) -> Thought:
        """Answer one problem. Raises InvalidRequest for an environment, whose answers are not one thought."""
        if isinstance(task, EnvironmentTask):
            raise InvalidRequest(f"{task.name} is an environment: audit tasks with one answer")
        completion = await self._sample(Ask.of(problem.question, **self.settings))
        return Thought(
            task=task, problem=problem, completion=completion, reply=await _reply(task, problem, completion.text)
        )

    async def answer_at_once(self, thought: Thought) -> Reply:
        """The answer to a prompt that asks for no thinking."""
        completion = await self._sample(Ask.of(thought.problem.question, thinking=0, temperature=0.0))
        return await _reply(thought.task, thought.problem, completion.text)

    async def answer_after(self, task: Task, problem: Problem, ids: Sequence[int]) -> Reply:
        """The answer after a prompt with a thought, which is closed here. ids: without the close."""
        ask = Ask(prompt=(*ids, self.close), start=Phase.ANSWER, thinking=ThinkingLimits(cap=0), temperature=0.0)
        return await _reply(task, problem, (await self._sample(replace(ask, max_tokens=ANSWER_TOKENS))).text)

    async def go_on(self, task: Task, problem: Problem, ids: Sequence[int], cap: int) -> Reply:
        """The answer after the model has gone on with the thought that `ids` end in.

        cap: thinking tokens that may still come.
        """
        ask = Ask(prompt=tuple(ids), start=Phase.THINK, thinking=ThinkingLimits(cap=cap), temperature=0.0)
        ask = replace(ask, max_tokens=cap + 4 * ANSWER_TOKENS)  # of a model that does not end its answer
        return await _reply(task, problem, (await self._sample(ask)).text)

    async def _sample(self, ask: Ask) -> Completion:
        (completion,) = await self.sampler.sample(ask.request(self.capabilities, n=1))
        return completion


def no_thinking(sampler: Sampler) -> str:
    """Why a model's thinking cannot be cut or changed; "" where it can."""
    capabilities = sampler.capabilities
    if capabilities.tokenizer is None or capabilities.format is None or not capabilities.exact:
        return "an endpoint does not take a part of a thought"
    return "" if capabilities.format.phase_tokens.think_close else "its format has no tokens for thinking"


async def _reply(task: Task, problem: Problem, answer: str) -> Reply:
    return Reply(answer, (await grade_async(task, problem, answer)).solved)


async def each_of(work: Iterable[Awaitable[T]], concurrency: int) -> list[T]:
    """All results in their order, that many at a time."""
    gate = asyncio.Semaphore(concurrency)

    async def one(each: Awaitable[T]) -> T:
        async with gate:
            return await each

    return await asyncio.gather(*(one(each) for each in work))


# Where a thought can be cut ------------------------------------------------------------------------------------------


def thinking_tokens(thought: Thought, tokens: PhaseTokens) -> int:
    """The tokens of all its contexts, the close left out."""
    return sum(map(len, _thinking(thought, tokens)))


def kept(thought: Thought, tokens: PhaseTokens, count: int) -> tuple[int, ...]:
    """The context after the first `count` thinking tokens; inside a state, what the model saw before it began one."""
    contexts = _thinking(thought, tokens)
    for number, (segment, thinking) in enumerate(zip(thought.completion.segments, contexts, strict=True)):
        if count < len(thinking) or number == len(contexts) - 1:
            part = thinking[:count]
            if tokens.state_open in part:
                part = part[: part.index(tokens.state_open)]
            return (*segment.prompt_ids, *part)
        count -= len(thinking)
    raise AssertionError("a thought has a context")


def _thinking(thought: Thought, tokens: PhaseTokens) -> list[tuple[int, ...]]:
    """The thinking of each context, the close left out. Thinking stands first in a context."""
    found = []
    for segment in thought.completion.segments:
        ids = segment.ids[: sum(phase is Phase.THINK for phase in segment.phases)]
        found.append(ids[:-1] if ids[-1:] == (tokens.think_close,) else ids)
    return found


# Where it can be changed ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Corruption:
    """One step of a thought with one token changed.

    number: of the context that holds it.
    before: the ids up to the changed token, the prompt included.
    old, new: the ids of that token, and what stands in its place.
    after: the rest of that context's thinking.
    step: what the step said.
    """

    number: int
    before: tuple[int, ...]
    old: tuple[int, ...]
    new: tuple[int, ...]
    after: tuple[int, ...]
    step: str


class Where(StrEnum):
    """Which steps of a thought are drawn from.

    ANYWHERE: all. IN_VIEW: those of the last context, which the answer still sees. LAST: the last.
    """

    ANYWHERE = "anywhere"
    IN_VIEW = "in view"
    LAST = "last"


def corrupt(thought: Thought, thinker: Thinker, where: Where) -> Corruption | None:
    """A step of the thought, drawn evenly, whose last digit (without one: last letter) is another.

    None where no step can be changed. States are left out: they are copies of what a step found.
    """
    rng = Random(f"audit {thought.task.name} {thought.problem.question}")
    contexts = _thinking(thought, thinker.tokens)
    steps = _steps(thought, thinker, contexts, where)
    if where is not Where.LAST:
        rng.shuffle(steps)
    for number, step in steps:
        ids, prompt = contexts[number], thought.completion.segments[number].prompt_ids
        if (change := other_token(thinker.tokenizer, ids[step.first : step.end], rng)) is not None:
            place = step.first + change[0]
            before, old = (*prompt, *ids[:place]), ids[place : place + 1]
            return Corruption(number, before, old, change[1], ids[place + 1 :], step.text)
    return None


def _steps(
    thought: Thought, thinker: Thinker, contexts: Sequence[tuple[int, ...]], where: Where
) -> list[tuple[int, ThoughtStep]]:
    """(context, step), the last first."""
    found: list[tuple[int, ThoughtStep]] = []
    for number, (segment, thinking) in enumerate(zip(thought.completion.segments, contexts, strict=True)):
        state = thinker.tokens.state_open
        end = thinking.index(state) if state in thinking else len(thinking)
        if where is Where.ANYWHERE or number == len(contexts) - 1:
            lines = steps_of(replace(thought.completion, segments=(segment,)), thinker.capabilities)
            found += [(number, line) for line in lines if line.end <= end]
    return found[::-1]


def other_token(tokenizer: Tokenizer, ids: Sequence[int], rng: Random) -> tuple[int, tuple[int, ...]] | None:
    """(place, new ids): the last token with a digit and another digit there; without digits, the same of letters."""
    texts = [tokenizer.decode([id]) for id in ids]
    for alphabet in ("0123456789", "abcdefghijklmnopqrstuvwxyz"):
        for place in reversed(range(len(texts))):
            text = texts[place]
            at = next((i for i in reversed(range(len(text))) if text[i].lower() in alphabet), None)
            if at is None or tokenizer.is_control(ids[place]):
                continue
            wrong = rng.choice([each for each in alphabet if each != text[at].lower()])
            changed = text[:at] + (wrong.upper() if text[at].isupper() else wrong) + text[at + 1 :]
            return place, tuple(tokenizer.encode(changed))
    return None
