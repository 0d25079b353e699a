"""Labels of the steps of a thought: by rollouts from its prefixes, and exact ones where a task shows its working."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from random import Random

from ponder.dialogue.messages import ReasoningPolicy
from ponder.evaluate.measure import grade_whole
from ponder.sampler.protocol import Completion, Sampler
from ponder.tasks.protocol import DemonstratedTask, Demonstration, Problem, Task, find_mistakes
from ponder.think.ask import Ask
from ponder.think.steps import ThoughtStep, go_on_from, steps_of
from ponder.train.data.records import Record
from ponder.types import InvalidRequest

WORKINGS = 8  # demonstrations that are drawn to see whether a task always shows the same


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledThought:
    """What was thought about a problem, with a label for each step, from 0 to 1.

    rollouts: the share of the answers that went on from the end of the step and were right (arXiv 2312.08935); of the
        last step, whether the answer itself was.
    exact: 1 while the steps are those that the task shows, 0 at the first other one, None after it; empty: the task
        shows no working.
    """

    problem: Problem
    steps: tuple[str, ...]
    answer: str
    rollouts: tuple[float, ...]
    exact: tuple[float | None, ...]

    def record(self, *, exact: bool) -> Record:
        """As `preferences.read_stepwise` reads it. exact: which labels are to be learned; the others are kept too."""
        return {
            "prompt": self.problem.question,
            "completions": list(self.steps),
            "labels": list(self.exact if exact else self.rollouts),
            "answer": self.answer,
            "rollouts": list(self.rollouts),
            "exact": list(self.exact),
        }


async def label_thoughts(
    sampler: Sampler, task: Task, problem: Problem, ask: Ask, *, thoughts: int, rollouts: int, seed: int
) -> list[LabelledThought]:
    """Labels of `thoughts` sampled thoughts about a problem.

    ask: how the answers are sampled; its prompt is the problem's question.
    rollouts: answers from each prefix, whose tokens are found in the cache; 0: exact labels alone.
    Thoughts that were cut off, were folded or hold an empty line are left out. Raises InvalidRequest for a sampler
    without tokens.
    """
    if sampler.capabilities.tokenizer is None:
        raise InvalidRequest(f"{sampler.name} has no tokens to go on from: use a local model")
    request = ask.override(seed=seed).request(sampler.capabilities, n=thoughts, temperature=1.0)
    whole = [each for each in await sampler.sample(request) if each.answers and len(each.segments) == 1]
    found = await asyncio.gather(
        *(
            _labelled(sampler, task, problem, ask, each, rollouts, Random(f"{seed}/{number}").getrandbits(40))
            for number, each in enumerate(whole)
        )
    )
    return [each for each in found if each is not None]


async def _labelled(
    sampler: Sampler, task: Task, problem: Problem, ask: Ask, completion: Completion, rollouts: int, seed: int
) -> LabelledThought | None:
    steps = steps_of(completion, sampler.capabilities)
    texts = [step.text.strip("\n") for step in steps]
    if not texts or not all(text.strip() and "\n" not in text for text in texts):
        return None
    shares = [
        _share(sampler, task, problem, ask, completion, after, rollouts, seed + number)
        for number, after in enumerate(steps[1:] if rollouts else ())
    ]
    last = (await grade_whole(task, problem, completion.message, complete=True)).solved
    labels = (*await asyncio.gather(*shares), float(last)) if rollouts else ()
    return LabelledThought(
        problem=problem,
        steps=tuple(texts),
        answer=completion.text,
        rollouts=labels,
        exact=exact_labels(task, problem, texts),
    )


async def _share(
    sampler: Sampler,
    task: Task,
    problem: Problem,
    ask: Ask,
    completion: Completion,
    after: ThoughtStep,
    rollouts: int,
    seed: int,
) -> float:
    """The share of right answers among those that go on where the step `after` begins."""
    asked = replace(go_on_from(ask, completion, after, sampler.capabilities), policy=ReasoningPolicy.CURRENT_TURN)
    request = asked.override(seed=seed * 1000).request(sampler.capabilities, n=rollouts, temperature=1.0)
    drawn = await sampler.sample(request)
    grades = await asyncio.gather(*(grade_whole(task, problem, each.message, complete=each.answers) for each in drawn))
    return sum(grade.solved for grade in grades) / rollouts


def exact_labels(task: Task, problem: Problem, steps: Sequence[str]) -> tuple[float | None, ...]:
    """See `LabelledThought`. The working of a task is taken as the only right one, so this is for tasks that always
    show the same; empty where two demonstrations without a mistake differ."""
    shown = _workings(task, problem) if isinstance(task, DemonstratedTask) else set()
    if len(shown) != 1:
        return ()
    (lines,) = shown
    labels: list[float | None] = []
    for number, step in enumerate(steps):
        right = number < len(lines) and step.strip() == lines[number].strip()
        if labels and labels[-1] != 1:
            labels.append(None)
        else:
            labels.append(float(right))
    return tuple(labels)


def _workings(task: DemonstratedTask, problem: Problem) -> set[tuple[str, ...]]:
    """The lines of the different demonstrations without a mistake, of several drawn."""
    drawn = [task.demonstrate(problem, Random(seed)) for seed in range(WORKINGS)]
    return {_lines(each) for each in drawn if not find_mistakes(each.reasoning)}


def _lines(shown: Demonstration) -> tuple[str, ...]:
    return tuple(line for line in shown.text.splitlines() if line.strip())


def spoiled(task: DemonstratedTask, problem: Problem, rng: Random) -> LabelledThought:
    """The working that a task shows, with a digit of one line changed in half of the draws: exact labels without a
    model. What follows a changed line is left out, and so is the answer."""
    shown = next(
        each for each in (task.demonstrate(problem, rng) for _ in count()) if not find_mistakes(each.reasoning)
    )
    lines = _lines(shown)
    digits = [(line, at) for line, text in enumerate(lines) for at, each in enumerate(text) if each.isdigit()]
    if rng.random() < 0.5 or not digits:
        labels: tuple[float | None, ...] = (1.0,) * len(lines)
        return LabelledThought(problem=problem, steps=lines, answer=shown.answer, rollouts=(), exact=labels)
    line, at = rng.choice(digits)
    other = rng.choice([digit for digit in "0123456789" if digit != lines[line][at]])
    wrong = lines[line][:at] + other + lines[line][at + 1 :]
    labels = (*(1.0,) * line, 0.0)
    return LabelledThought(problem=problem, steps=(*lines[:line], wrong), answer="", rollouts=(), exact=labels)


def agreement_of_labels(thoughts: Sequence[LabelledThought]) -> tuple[float, float, int]:
    """(the share of exactly right steps that rollouts call right, that of exactly wrong ones that they call wrong, how
    many steps). A step is called right where any rollout from it was."""
    right: list[bool] = []
    wrong: list[bool] = []
    for each in thoughts:
        for share, exact in zip(each.rollouts, each.exact, strict=False):
            if exact is not None:
                (right if exact == 1 else wrong).append((share > 0) == (exact == 1))
    return sum(right) / max(1, len(right)), sum(wrong) / max(1, len(wrong)), len(right) + len(wrong)
