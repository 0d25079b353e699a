"""A scorer of steps as a verifier: how likely each line of a thought is right."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ponder.dialogue.format import Format, SpanKind
from ponder.dialogue.load import load_format
from ponder.dialogue.messages import Message, Reasoning, Role, Text
from ponder.engine.engine import COMPUTE_LOCK
from ponder.model.scoring import Reads, ScoringModel, load_scoring_model
from ponder.tasks.protocol import Grade, GradeStatus
from ponder.tasks.verifiers.reward import logistic
from ponder.tokenizer import Tokenizer
from ponder.types import CheckpointError


class Whole(StrEnum):
    """What the score of a whole thought is, of its steps' probabilities.

    MIN: the smallest (arXiv 2312.08935). PRODUCT: all of them right (arXiv 2305.20050). LAST: that of the last step.
    """

    MIN = "min"
    PRODUCT = "product"
    LAST = "last"


@dataclass(frozen=True, slots=True)
class StepIds:
    """A conversation as ids, the place in them at which each step of its last message ends, and what each step says."""

    ids: tuple[int, ...]
    places: tuple[int, ...]
    texts: tuple[str, ...]


def step_ids(format: Format, tokenizer: Tokenizer, prompt: Sequence[Message], message: Message) -> StepIds:
    """What a scorer of steps reads, in training and afterwards: the last message with its thinking, whose lines are the
    steps; without thinking the lines of what it says are. A step ends with the id that holds the line break."""
    rendered = format.render([*prompt, message], train=True)
    kinds = (SpanKind.REASONING,) if message.reasoning else (SpanKind.TEXT,)
    inside = [
        place
        for span in rendered.spans
        if span.message_index == len(prompt) and span.kind in kinds
        for place in range(span.begin, span.end)
    ]
    places, texts = ends_of_lines(rendered.ids, inside, tokenizer)
    return StepIds(rendered.ids, places, texts)


def ends_of_lines(
    ids: Sequence[int], inside: Sequence[int], tokenizer: Tokenizer
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """(the places of `inside` at which a line ends, what each line says). Lines of nothing but white space end none."""
    places: list[int] = []
    texts: list[str] = []
    begin = 0
    for at, place in enumerate(inside):
        if at + 1 < len(inside) and "\n" not in tokenizer.decode(ids[place : place + 1]):
            continue
        text = tokenizer.decode([ids[each] for each in inside[begin : at + 1]]).strip("\n")
        if text.strip():
            places.append(place)
            texts.append(text)
            begin = at + 1
    return tuple(places), tuple(texts)


class StepScorer:
    """How likely each step is right, as `train.algorithms.process` learned it from labels."""

    def __init__(
        self,
        scoring: ScoringModel,
        tokenizer: Tokenizer,
        format: Format,
        *,
        name: str = "steps",
        whole: Whole = Whole.MIN,
    ) -> None:
        self.scoring, self.tokenizer, self.format = scoring, tokenizer, format
        self.name, self.whole = name, whole

    @classmethod
    def load(cls, folder: str | Path, *, whole: Whole = Whole.MIN) -> StepScorer:
        """Raises CheckpointError or TokenizerError naming the file."""
        scoring = load_scoring_model(folder)
        if scoring.scale.reads is not Reads.STEPS:
            raise CheckpointError(f"{folder}: scores answers, not steps: name a model of the stage process")
        tokenizer = Tokenizer.load(folder)
        name = Path(os.path.abspath(folder)).name
        return cls(scoring, tokenizer, load_format(tokenizer), name=name, whole=whole)

    def probabilities(self, read: StepIds) -> list[float]:
        """Of each step."""
        if not read.places:
            return []
        with COMPUTE_LOCK:
            scores = self.scoring.scores(read.ids, read.places)
        return [logistic(self.scoring.scale(score)) for score in scores]

    def grade_message(self, prompt: Sequence[Message], message: Message) -> Grade:
        """The score of the whole thought. `wrong_step` is the first step that is more likely wrong than right."""
        read = step_ids(self.format, self.tokenizer, prompt, message)
        if len(read.ids) > self.scoring.model.config.max_positions:
            return Grade(score=0.0, status=GradeStatus.FAILED, why="longer than the window of the scorer")
        found = self.probabilities(read)
        if not found:
            return Grade(score=0.0, why="no step")
        wrong = next((text for text, each in zip(read.texts, found, strict=True) if each < 0.5), "")
        return Grade(score=whole_score(found, self.whole), wrong_step=wrong, why=f"{min(found):.2f} at the worst step")

    def grade_thought(self, prompt: Sequence[Message], thought: str) -> Grade:
        """The score of the steps so far. What would follow them plays no part: each is scored at its end."""
        return self.grade_message(prompt, Message(Role.ASSISTANT, (Reasoning(thought), Text(""))))

    def rewards(self, prompt_ids: Sequence[int], ids: Sequence[int]) -> list[tuple[int, float]]:
        """(place in `ids`, probability) at the end of each line that was sampled after a prompt, up to the end of the
        thinking where there is one."""
        whole = (*prompt_ids, *ids)
        close = self.format.phase_tokens.think_close
        end = len(prompt_ids) + (list(ids).index(close) if close is not None and close in ids else len(ids))
        own = [place for place in range(len(prompt_ids), end) if not self.tokenizer.is_control(whole[place])]
        places, texts = ends_of_lines(whole, own, self.tokenizer)
        found = self.probabilities(StepIds(whole, places, texts))
        return [(place - len(prompt_ids), each) for place, each in zip(places, found, strict=True)]


def whole_score(probabilities: Sequence[float], whole: Whole) -> float:
    match whole:
        case Whole.MIN:
            return min(probabilities)
        case Whole.PRODUCT:
            return math.prod(probabilities)
        case Whole.LAST:
            return probabilities[-1]
