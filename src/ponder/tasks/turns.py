"""One attempt in an environment, turn by turn: the model calls tools, reads their results and is sampled further.

Results are appended as ENV tokens, which carry no loss. What was sampled is never encoded again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from random import Random

from ponder.dialogue.messages import Message, Role, Start, ToolCall, ToolResult
from ponder.sampler.protocol import Completion, Request, Sampler
from ponder.tasks.isolated import IsolatedEnv
from ponder.tasks.protocol import BAD_CALL, Env, EnvFailed, EnvironmentTask, Grade, Problem
from ponder.types import InvalidRequest, Origin, Phase, SamplingParams, Segment, StopReason, Trajectory


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One answer to a problem. The reward is the grade's score, with nothing added yet.

    completion: in an environment, of the last turn, with the segments and the bill of all turns.
    messages: what followed the question: one message, or the turns with the results of their calls.
    """

    problem: Problem
    completion: Completion
    grade: Grade
    messages: tuple[Message, ...]

    @property
    def trajectory(self) -> Trajectory:
        return Trajectory(segments=self.completion.segments, reward=self.grade.score)

    @property
    def truncated(self) -> bool:
        return self.completion.stop_reason in (StopReason.LENGTH, StopReason.REPEATED)


async def play(
    sampler: Sampler, task: EnvironmentTask, problem: Problem, first: Completion, *, params: SamplingParams, seed: str
) -> Attempt:
    """The attempt that begins with the turn `first`, to its grade. max_tokens counts all turns, results included;
    limits on thinking hold for each. Raises InvalidRequest for a sampler that does not say how it renders."""
    return await _Turns(sampler, task, problem, first, params=params, seed=seed).play()


class _Turns:
    """One attempt in an environment, from the first turn on."""

    def __init__(
        self,
        sampler: Sampler,
        task: EnvironmentTask,
        problem: Problem,
        first: Completion,
        *,
        params: SamplingParams,
        seed: str,
    ) -> None:
        capabilities = sampler.capabilities
        if capabilities.format is None:
            raise InvalidRequest(
                f"{sampler.name} does not say how it renders tool results: environments need a local model"
            )
        self.format, self.window = capabilities.format, capabilities.window
        self.sampler, self.problem, self.params = sampler, problem, params
        self.env, self.max_turns = task.start(problem), task.max_turns
        self.random = Random(seed)
        self.messages = [Message.user(problem.question), first.message]
        self.completion = first

    async def play(self) -> Attempt:
        """Calls and results, until the model answers or a limit is reached."""
        try:
            for _ in range(1, self.max_turns):
                calls = [part for part in self.completion.message.parts if isinstance(part, ToolCall)]
                if not calls or self.completion.stop_reason is not StopReason.END:
                    break
                for call in calls:
                    self.messages.append(Message(Role.TOOL, (await _result(self.env, call),)))
                await self._turn()
            answer, env = self.completion.text, self.env
            grade = await env.grade_async(answer) if isinstance(env, IsolatedEnv) else env.grade(answer)
        except EnvFailed as failed:
            grade = failed.grade
        return Attempt(problem=self.problem, completion=self.completion, grade=grade, messages=tuple(self.messages[1:]))

    async def _turn(self) -> None:
        """The next turn of the model, after the results; skipped where there is no room for it."""
        format, params, so_far = self.format, self.params, self.completion
        thinks = params.thinking.cap != 0 and format.phase_tokens.think_close is not None
        prompt = format.render(self.messages, start=Start.THINK if thinks else Start.DIRECT).ids
        last = so_far.segments[-1]
        context = (*last.prompt_ids, *last.ids)
        # The context only grows, unless a stray control token was sampled: that is rendered as the text that spells it.
        brought = prompt[len(context) :] if prompt[: len(context)] == context else None
        left = None
        if params.max_tokens is not None:
            spent = sum(len(segment.ids) for segment in so_far.segments) + len(brought or ())
            longest = len(so_far.segments[0].prompt_ids) + params.max_tokens  # of any one context
            left = min(params.max_tokens - spent, longest - len(prompt))
        room = None if self.window is None else self.window - len(prompt)
        free = min((each for each in (left, room) if each is not None), default=None)
        if free is not None and free < 1:
            self.completion = replace(so_far, stop_reason=StopReason.LENGTH)
            return
        (said,) = await self.sampler.sample(
            Request(
                prompt=prompt,
                params=replace(
                    params,
                    seed=self.random.getrandbits(63),
                    max_tokens=left,
                    answer_room=params.answer_room if free is None else min(params.answer_room, free - 1),
                ),
                start=Phase.THINK if thinks else Phase.ANSWER,
            )
        )
        first, *folded = said.segments
        joined = [first] if brought is None else [_joined(last, brought, first)]
        kept = so_far.segments if brought is None else so_far.segments[:-1]
        self.messages.append(said.message)
        self.completion = replace(said, segments=(*kept, *joined, *folded), usage=so_far.usage + said.usage)


async def _result(env: Env, call: ToolCall) -> ToolResult:
    """The result of a call, or what is wrong with it."""
    try:
        if call.name not in env.tools:
            raise LookupError(f"there is no tool {call.name!r}: there are {', '.join(env.tools)}")
        arguments = _read(call.arguments)
        if isinstance(env, IsolatedEnv):
            content = await env.step_async(call.name, arguments)
        else:
            content = env.step(call.name, arguments)
    except BAD_CALL as error:
        content = f"error: {error}"
    return ToolResult(call.name, content, call.id)


def _read(arguments: str) -> object:
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError) as error:
        raise ValueError("the arguments are not JSON") from error


def _joined(before: Segment, brought: tuple[int, ...], after: Segment) -> Segment:
    """One context: what was sampled, what the environment brought, what was sampled after it."""
    count = len(brought)
    return Segment(
        prompt_ids=before.prompt_ids,
        ids=(*before.ids, *brought, *after.ids),
        logprobs=(*before.logprobs, *(0.0,) * count, *after.logprobs),
        phases=(*before.phases, *(Phase.TOOL,) * count, *after.phases),
        origins=(*before.origins, *(Origin.ENV,) * count, *after.origins),
        weights_version=after.weights_version,
        top_logprobs=(*before.top_logprobs, *((),) * count, *after.top_logprobs) if after.top_logprobs else (),
    )
