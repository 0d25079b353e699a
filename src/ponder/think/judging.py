"""A model as a judge: it is shown the question and the answer, checks it, and ends with a mark."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import cast

from ponder.dialogue.messages import Conversation, Message
from ponder.sampler.protocol import Completion, NextTurn, Sampler
from ponder.tasks.protocol import Grade, GradeStatus
from ponder.think.ask import Ask, Judge
from ponder.think.events import Event
from ponder.think.ledger import Ledger
from ponder.think.samples import Samples
from ponder.types import SamplerError

MARK = """Is this answer right? Check it. Then end with a line that holds nothing but a mark from 0 to 10: 0 is surely \
wrong, 10 is surely right."""
BEST = 10
LAST_NUMBER = re.compile(r"(?:^|\s)\W*(\d+(?:\.\d+)?)(?:\s*/\s*10)?\W*$")


class Judgement:
    """One answer judged by a model: iterate over its events, then read `.grade`. It is one sample of the run's, so it
    is reserved and billed as all others are.

    sampler: what gave the answer; it is the judge of an ask whose judge is `Judge.SELF`.
    """

    def __init__(self, completion: Completion, ask: Ask, sampler: Sampler, ledger: Ledger) -> None:
        self.grade = Grade(score=0.0, why="no answer")
        self._completion, self._ask, self._ledger = completion, ask, ledger
        self._judge = judge_of(ask, sampler)

    async def __aiter__(self) -> AsyncGenerator[Event, None]:
        if not self._completion.answers:
            return
        if self._ledger.cut is not None:
            self.grade = Grade(score=0.0, status=GradeStatus.TIMEOUT, why=f"not judged ({self._ledger.cut})")
            return
        samples = Samples(_question(self._ask, self._completion), self._judge, self._ledger, 1, role="judge")
        try:
            async for event in samples:
                yield event
        except SamplerError as error:
            self.grade = Grade(score=0.0, status=GradeStatus.FAILED, why=str(error))
            return
        (said,) = samples.completions
        self.grade = read_mark(said.text) if said.answers else _unmarked("the judge came to no end")


def judge_of(ask: Ask, sampler: Sampler) -> Sampler:
    """The model that judges answers of `sampler`."""
    assert ask.judge is not None
    return sampler if isinstance(ask.judge, Judge) else ask.judge


def read_mark(text: str) -> Grade:
    """The mark that a judgement ends with, as a score from 0 to 1; what it says before is why."""
    text = text.strip()
    found = LAST_NUMBER.search(text)
    if found is None or float(found[1]) > BEST:
        return _unmarked(f"the judge gave no mark from 0 to {BEST}: {text}")
    return Grade(score=float(found[1]) / BEST, why=" ".join(text[: found.start()].split()))


def _unmarked(why: str) -> Grade:
    return Grade(score=0.0, status=GradeStatus.UNPARSEABLE, why=why)


def _question(ask: Ask, completion: Completion) -> Ask:
    """What the judge is asked. Ids that the caller chose are those of another tokenizer, so they are left out."""
    answered = (*cast(Conversation, ask.prompt), Message.assistant(completion.text), Message.user(MARK))
    return replace(
        ask.override(next_turn=NextTurn.NONE, temperature=0.0),
        prompt=answered,
        grammar=None,
        stop=(),
        stop_ids=(),
        logit_bias=(),
    )
