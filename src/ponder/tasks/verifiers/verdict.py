"""A model that checks an answer in words: it thinks, then says yes or no (arXiv 2408.15240); problems that teach it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from random import Random

from ponder.dialogue.messages import Message, Role
from ponder.sampler.local import load_sampler
from ponder.sampler.protocol import Request, Sampler
from ponder.sampler.threads import run_sync
from ponder.tasks.protocol import DemonstratedTask, Demonstration, Grade, GradeStatus, Problem, find_mistakes
from ponder.types import SamplingParams, ThinkingLimits, Usage

ASKING = "{question}\nSomeone answered: {answer}\nIs that right? Say yes or no."
YES, NO = "yes", "no"


class Verdicts:
    """Answers to another task's problems, half of them wrong, to be judged by yes or no.

    A wrong answer is the right one with a digit changed, or, without digits, the answer to another problem. The
    demonstration solves the problem, and then compares.
    """

    def __init__(self, task: DemonstratedTask) -> None:
        self.task = task
        self.name = f"verdict:{task.name}"

    def sample(self, rng: Random, level: float) -> Problem:
        problem = self.task.sample(rng, level)
        right = rng.random() < 0.5
        answer = problem.answer if right else self._wrong(problem, rng, level)
        asked = ASKING.format(question=problem.question, answer=answer)
        metadata = {"problem": problem, "answer": answer}
        return Problem(task=self.name, question=asked, answer=YES if right else NO, metadata=metadata)

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        inner: Problem = problem.metadata["problem"]
        drawn = (self.task.demonstrate(inner, rng) for _ in count())
        shown = next(each for each in drawn if not find_mistakes(each.reasoning))
        compared = f"{shown.answer} {'is' if problem.answer == YES else 'is not'} {problem.metadata['answer']}"
        return replace(shown, reasoning=f"{shown.reasoning}\n{compared}", answer=problem.answer, pieces=())

    def grade(self, problem: Problem, answer: str) -> Grade:
        said = read_verdict(answer)
        if said is None:
            return Grade(score=0.0, status=GradeStatus.UNPARSEABLE, why="neither yes nor no")
        return Grade(score=float(said == (problem.answer == YES)))

    def same(self, a: str, b: str) -> bool:
        return read_verdict(a) == read_verdict(b)

    def _wrong(self, problem: Problem, rng: Random, level: float) -> str:
        digits = [place for place, each in enumerate(problem.answer) if each.isdigit()]
        while True:
            if digits:
                place = rng.choice(digits)
                other = rng.choice("0123456789")
                wrong = problem.answer[:place] + other + problem.answer[place + 1 :]
            else:
                wrong = self.task.sample(rng, level).answer
            if not self.task.grade(problem, wrong).solved:
                return wrong


def read_verdict(text: str) -> bool | None:
    """Whether it says yes; None: neither yes nor no."""
    said = text.strip().strip(".!").lower()
    return {YES: True, NO: False}.get(said)


class VerdictVerifier:
    """The share of a model's verdicts that are yes. What it writes is charged to the answer's run.

    votes: verdicts on each answer. thinking: the most tokens that each is thought about; None: no cap.
    """

    def __init__(
        self, sampler: Sampler, *, votes: int = 4, thinking: int | None = None, max_tokens: int = 1024, seed: int = 0
    ) -> None:
        self.sampler, self.votes = sampler, votes
        self._params = SamplingParams(
            max_tokens=max_tokens,
            temperature=1.0 if votes > 1 else 0.0,
            thinking=ThinkingLimits(cap=thinking),
            seed=seed,
        )

    @classmethod
    def load(cls, folder: str | Path) -> VerdictVerifier:
        """Of a model folder that was taught `verdict:TASK`. Raises CheckpointError or TokenizerError."""
        return cls(load_sampler(folder))

    def grade_message(self, prompt: Sequence[Message], message: Message) -> Grade:
        question = next((each.text for each in reversed(prompt) if each.role is Role.USER), "")
        asked = ASKING.format(question=question, answer=message.text)
        request = Request(prompt=(Message.user(asked),), params=self._params, n=self.votes)
        completions = run_sync(self.sampler.sample(request))
        said = [read_verdict(each.text) for each in completions if each.answers]
        usage = sum((each.usage for each in completions), Usage())
        clear = [each for each in said if each is not None]
        if not clear:
            return Grade(score=0.0, status=GradeStatus.FAILED, why="no verdict", usage=usage)
        return Grade(score=sum(clear) / len(clear), why=f"{sum(clear)} of {len(clear)} verdicts are yes", usage=usage)
