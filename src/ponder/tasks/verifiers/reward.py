"""A reward model as a verifier of answers and as the grade of a task: prompts whose answers have no key."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from ponder.dialogue.format import Format
from ponder.dialogue.load import load_format
from ponder.dialogue.messages import Message, Reasoning
from ponder.dialogue.tools import Tool
from ponder.engine.engine import COMPUTE_LOCK
from ponder.model.scoring import Reads, ScoringModel, load_scoring_model
from ponder.tasks.protocol import Grade, GradeStatus, MessageVerifier, Problem, Task
from ponder.tokenizer import Tokenizer
from ponder.types import CheckpointError, WindowExceeded


def scored_ids(
    format: Format, prompt: Sequence[Message], answer: Sequence[Message], tools: Sequence[Tool] = ()
) -> tuple[int, ...]:
    """What a reward model reads, in training and afterwards: the conversation without any thinking, to the end of its
    last turn, at whose last id the score is. Raises FormatError for what the format cannot express."""
    return format.render([*map(_visible, prompt), *map(_visible, answer)], train=True, tools=tools).ids


def _visible(message: Message) -> Message:
    return replace(message, parts=tuple(part for part in message.parts if not isinstance(part, Reasoning)))


class RewardModel:
    """What a person would think of an answer, as `train.algorithms.reward` learned it from judgements."""

    def __init__(self, scoring: ScoringModel, tokenizer: Tokenizer, format: Format, *, name: str = "reward") -> None:
        self.scoring, self.tokenizer, self.format, self.name = scoring, tokenizer, format, name

    @classmethod
    def load(cls, folder: str | Path) -> RewardModel:
        """Raises CheckpointError or TokenizerError naming the file."""
        scoring = load_scoring_model(folder)
        if scoring.scale.reads is not Reads.ANSWER:
            raise CheckpointError(f"{folder}: scores steps, not answers: name a model of the stage reward")
        tokenizer = Tokenizer.load(folder)
        return cls(scoring, tokenizer, load_format(tokenizer), name=Path(os.path.abspath(folder)).name)

    def reward(self, prompt: Sequence[Message], answer: Sequence[Message], tools: Sequence[Tool] = ()) -> float:
        """The score on its scale: over the answers that it was scaled by, the mean is 0 and the deviation 1.

        Raises WindowExceeded for a conversation that is longer than the model's window."""
        return self.read(prompt, answer, tools)[0]

    def read(
        self, prompt: Sequence[Message], answer: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> tuple[float, int]:
        """(the reward, how many ids were read)."""
        ids, window = scored_ids(self.format, prompt, answer, tools), self.scoring.model.config.max_positions
        if len(ids) > window:
            raise WindowExceeded(
                f"the conversation takes {len(ids)} tokens, more than the window of the reward model ({window}): "
                "shorten it",
                prompt_tokens=len(ids),
                window=window,
            )
        with COMPUTE_LOCK:
            (score,) = self.scoring.scores(ids)
        return self.scoring.scale(score), len(ids)

    def grade_message(self, prompt: Sequence[Message], message: Message) -> Grade:
        """The reward as a share between 0 and 1, its logistic function. What does not fit has no grade."""
        if not message.text.strip():
            return Grade(score=0.0, why="no answer")
        try:
            reward, length = self.read(prompt, [message])
        except WindowExceeded as error:
            return Grade(score=0.0, status=GradeStatus.FAILED, why=str(error))
        longest = self.scoring.scale.longest
        beyond = f", of {length} tokens, where training had at most {longest}" if 0 < longest < length else ""
        return Grade(score=logistic(reward), why=f"reward {reward:.2f}{beyond}")


def logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


class RewardTask:
    """Prompts whose answers a model grades, such as a reward model: their own, or those of another task.

    accept: the reward from which an answer is solved: grades are then 1 or 0, as rejection sampling needs them. None:
        the grade is the reward between 0 and 1.
    """

    def __init__(
        self, verifier: MessageVerifier, prompts: Sequence[str] | Task, *, name: str, accept: float | None = None
    ) -> None:
        self.name = name
        self._verifier, self._prompts, self._accept = verifier, prompts, accept

    def sample(self, rng: Random, level: float) -> Problem:
        """Of a list, the prompt at `level` of its length: n levels spread evenly give n different ones."""
        if isinstance(self._prompts, Sequence):
            place = min(int(level * len(self._prompts)), len(self._prompts) - 1)
            return Problem(task=self.name, question=self._prompts[place], answer="")
        return replace(self._prompts.sample(rng, level), task=self.name)

    def grade(self, problem: Problem, answer: str) -> Grade:
        """Of an answer that has come to its end."""
        return self.grade_message(problem, Message.assistant(answer), complete=True)

    def grade_message(self, problem: Problem, message: Message, *, complete: bool) -> Grade:
        """An answer that was cut off has the grade 0: the reward model has only seen whole ones."""
        if not complete:
            return Grade(score=0.0, why="cut off")
        grade = self._verifier.grade_message([Message.user(problem.question)], message)
        if self._accept is None or grade.status is not GradeStatus.GRADED:
            return grade
        return replace(grade, score=float(grade.score >= logistic(self._accept)))

    async def grade_async(self, problem: Problem, answer: str) -> Grade:
        return await asyncio.to_thread(self.grade, problem, answer)

    def same(self, a: str, b: str) -> bool:
        return a.split() == b.split()
