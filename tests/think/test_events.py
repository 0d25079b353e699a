"""What a strategy streams: events in order, each sample numbered once, the bill and the trace derived from them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import pytest

from ponder.dialogue.messages import Message
from ponder.dialogue.tools import Tool
from ponder.sampler.protocol import Delivery, Delta, Done
from ponder.testing.scripted import Say, ScriptedSampler
from ponder.testing.tiny import tiny_sampler
from ponder.think import (
    Answer,
    Ask,
    Demand,
    Ledger,
    Reasoner,
    Samples,
    answer_of,
    consensus,
    direct,
    events_of,
    parse_strategy,
)
from ponder.think.events import Answered, Asked, Started, Stopped, Voted, bill, pieces
from ponder.think.registry import strategy_names
from ponder.think.strategy import NotTaken
from ponder.types import Budget, InvalidRequest, Phase, SamplerError, Usage

ASK = Ask.of("What is 6 times 7?")
THOUGHT = Say(text="It is 42.", reasoning="Six sevens.")


def events(strategy, sampler, ask=ASK, ledger=None):
    async def gathered():
        return [event async for event in events_of(strategy, ask, sampler, ledger)]

    return asyncio.run(gathered())


def kinds(events):
    return [type(event).__name__ for event in events if not isinstance(event, Delta)]


def test_a_run_begins_with_asked_and_ends_with_answered():
    run = events(direct(), ScriptedSampler([THOUGHT]))
    assert kinds(run) == ["Asked", "Started", "Done", "Answered"]
    assert run[0] == Asked(ASK, "direct")
    assert "".join(event.text for event in run if isinstance(event, Delta)) == "Six sevens.It is 42."


def test_a_vote_streams_its_candidates_and_then_the_votes():
    run = events(consensus(samples=3), ScriptedSampler(["1", "2", "2"]))
    assert kinds(run) == ["Asked"] + ["Started"] * 3 + ["Done"] * 3 + ["Voted", "Answered"]
    (voted,) = [event for event in run if isinstance(event, Voted)]
    assert [(vote.answer, vote.samples) for vote in voted.votes] == [("2", (1, 2)), ("1", (0,))]
    assert [event.choice for event in run if isinstance(event, Started)] == [None] * 3


def test_the_answer_s_bill_and_trace_are_those_of_the_events():
    *before, end = events(consensus(samples=2), ScriptedSampler(["a", "b c"]))
    assert isinstance(end, Answered)
    assert end.answer.usage == bill(before) != Usage()
    assert end.answer.events == tuple(event for event in before if not isinstance(event, Delta))


def test_a_cut_run_says_so_in_its_events():
    run = events(direct(), ScriptedSampler([Say("a b", seconds=60)]), ledger=Ledger(Budget(seconds=0.2)))
    assert kinds(run) == ["Asked", "Started", "Done", "Stopped", "Answered"]
    assert run[-1].answer.cut is next(event.cut for event in run if isinstance(event, Stopped))


def test_an_ask_for_several_answers_gets_them_from_one_request():
    sampler = ScriptedSampler(["a", "b", "c"])
    run = events(direct(), sampler, ASK.override(n=3))
    assert [each.text for each in run[-1].answer.completions] == ["a", "b", "c"]
    assert [event.choice for event in run if isinstance(event, Started)] == [0, 1, 2]
    assert len(sampler.requests) == 1


@pytest.mark.parametrize(
    ("field", "settings"), [("n", {"n": 2}), ("tools", {"tools": [Tool("add")]}), ("logprobs", {"logprobs": True})]
)
def test_a_strategy_refuses_by_name_what_it_does_not_take(field, settings):
    with pytest.raises(NotTaken, match=f"^{field} cannot be set beside the strategy consensus@8") as refused:
        events(consensus(), ScriptedSampler([]), ASK.override(**settings))
    assert refused.value.field == field


def test_a_strategy_declares_how_many_sequences_it_may_run():
    assert direct().demand(ASK.override(n=4)) == Demand(4, 4)
    assert consensus(samples=3).demand(ASK) == Demand(3, 3)
    assert consensus(samples=8).demand(ASK) == Demand(4, 8), "four at once, so that it may stop early"
    assert consensus(samples=8, until="all").demand(ASK) == Demand(8, 8)


# Views ----------------------------------------------------------------------------------------------------------------


def viewed(strategy, sampler, ask=ASK):
    async def gathered():
        return [piece async for piece in pieces(events_of(strategy, ask, sampler))]

    return asyncio.run(gathered())


def test_the_pieces_of_a_direct_answer_come_as_they_are_sampled():
    shown = viewed(direct(), ScriptedSampler([THOUGHT]))
    assert [piece.text for piece in shown if isinstance(piece, Delta)] == ["Six", " sevens.", "It", " is", " 42."]
    assert isinstance(shown[-1], Done)


def test_the_pieces_of_a_vote_are_the_winner_with_the_bill_of_all():
    *text, done = viewed(consensus(samples=3), ScriptedSampler([Say("1"), Say("2", "hm"), Say("2", "ah")]))
    assert text == [Delta(0, Phase.THINK, "hm"), Delta(0, Phase.ANSWER, "2")]
    assert done.completion.usage.completion_tokens == 2 + 4 + 4


def test_events_can_be_read_from_plain_code():
    with Reasoner(ScriptedSampler(["1", "1"])).events("x", strategy="consensus(samples=2)") as run:
        assert kinds(run) == ["Asked", "Started", "Started", "Done", "Done", "Voted", "Answered"]
    assert run.answer.margin == 1


# Strategies of a user -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Revised:
    """Asks another strategy, then shows it its own answer and asks again."""

    inner: object
    name: str = "revised"

    def demand(self, ask: Ask) -> Demand:
        inner = self.inner.demand(ask)
        return Demand(inner.at_once, inner.in_all + 1)

    async def stream(self, ask, sampler, ledger) -> AsyncGenerator:
        async for event in self.inner.stream(ask, sampler, ledger):
            if isinstance(event, Answered):
                draft = event.answer.message
            else:
                yield event
        again = ask.override(seed=1)
        again = Ask(prompt=(*ask.prompt, draft, Message.user("Check it.")), seed=again.seed)
        samples = Samples(again, sampler, ledger, 1, temperature=0.0)
        async for event in samples:
            yield event
        yield Answered(Answer(message=samples.completions[0].message, completions=samples.completions))


def test_strategies_nest_and_one_ledger_holds_for_all():
    sampler = ScriptedSampler(["1", "2", "2", "3"])
    run = events(Revised(consensus(samples=3)), sampler, ledger=Ledger(Budget(tokens=40, samples=4)))
    assert [event.sample for event in run if isinstance(event, Started)] == [0, 1, 2, 3]
    assert [event.index for event in run if isinstance(event, Done)] == [0, 1, 2, 3]
    answer = run[-1].answer
    assert answer.text == "3"
    assert answer.usage.completion_tokens == 8
    with pytest.raises(InvalidRequest, match=r"the budget is used up \(None tokens, 3 samples"):
        events(Revised(consensus(samples=3)), ScriptedSampler(["1"] * 4), ledger=Ledger(Budget(samples=3)))


def test_what_samples_leave_of_a_budget_is_free_for_the_next():
    sampler = ScriptedSampler(["1", "1", "1", "2 3 4 5 6 7 8"])
    answer = events(Revised(consensus(samples=3)), sampler, ledger=Ledger(Budget(tokens=14)))[-1].answer
    assert sampler.requests[1].params.max_tokens == 14 - 3 * 2
    assert answer.text == "2 3 4 5 6 7 8"


def test_a_strategy_without_an_answer_is_told_so():
    class Silent(Revised):
        async def stream(self, ask, sampler, ledger):
            return
            yield

    with pytest.raises(SamplerError, match="'revised' ended without an answer"):
        events(Silent(direct()), ScriptedSampler([]))


def test_a_run_that_is_left_aborts_its_samples():
    aborted = []

    class Watched(ScriptedSampler):
        async def stream(self, request, delivery):
            try:
                async with aclosing(super().stream(request, delivery)) as stream:
                    async for event in stream:
                        yield event
            finally:
                aborted.append(request.n)

    async def left():
        run = events_of(Revised(direct()), ASK, Watched([Say("word " * 50, seconds=60)]))
        async for event in run:
            if isinstance(event, Delta):
                break
        await run.aclose()
        return list(aborted)

    assert asyncio.run(left()) == [1]


FILE = """
from collections.abc import AsyncGenerator
from ponder.think import Answer, Ask, Demand, Ledger, Samples
from ponder.think.events import Answered, Event


class Longest:
    def __init__(self, samples: int) -> None:
        self.samples = samples
        self.name = f"longest@{samples}"

    def demand(self, ask: Ask) -> Demand:
        return Demand(self.samples, self.samples)

    async def stream(self, ask, sampler, ledger: Ledger) -> AsyncGenerator[Event, None]:
        samples = Samples(ask, sampler, ledger, self.samples, temperature=1.0)
        async for event in samples:
            yield event
        longest = max(samples.completions, key=lambda each: len(each.text))
        yield Answered(Answer(message=longest.message, completions=samples.completions))


def longest(samples: int = 2) -> Longest:
    return Longest(samples)


def wrong() -> int:
    return 3
"""


def test_a_strategy_in_a_file_is_named_by_it(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(FILE)
    answer = Reasoner(ScriptedSampler(["a", "abc", "ab"])).ask("x", strategy=f"{file}:longest(samples=3)")
    assert answer.text == "abc"
    assert parse_strategy(f"{file}:longest").name == "longest@2"
    for text, why in (
        (f"{file}:longest(sample=3)", "did you mean 'samples'"),
        (f"{file}:longest(samples='3')", "samples must be int"),
        (f"{file}:wrong", "must return a strategy, with name, demand and stream"),
        (f"{file}:gone", "has no 'gone'"),
        (f"{tmp_path / 'gone.py'}:longest", "there is no file"),
    ):
        with pytest.raises(InvalidRequest, match=why):
            parse_strategy(text)
    with pytest.raises(InvalidRequest, match="is not a strategy"):
        parse_strategy(f"{file}:longest", files=False)


def test_every_file_of_the_package_makes_a_strategy():
    assert {"direct", "consensus"} <= set(strategy_names())
    for name in strategy_names():
        assert parse_strategy(name).name.startswith(name)


# Settings -------------------------------------------------------------------------------------------------------------


def test_settings_are_given_as_people_write_them():
    ask = Ask.of("x", effort="low", stop="end", tools=[Tool("add")], temperature=None)
    assert (ask.effort.value, ask.stop, ask.tools, ask.temperature) == ("low", ("end",), (Tool("add"),), None)
    assert ask.override(thinking=8).effort is None
    with pytest.raises(InvalidRequest, match="no effort 'huge'"):
        Ask.of("x", effort="huge")


def test_only_what_was_asked_for_reaches_the_sampler():
    sampler = ScriptedSampler(["a"])
    asyncio.run(answer_of(direct(), ASK.override(top_p=0.5, top_k=3, min_p=0.1, stop="!", tenant="t"), sampler))
    (request,) = sampler.requests
    assert (request.params.top_p, request.params.top_k, request.params.min_p) == (0.5, 3, 0.1)
    assert (request.stop, request.tenant, request.seconds) == (("!",), "t", None)


def test_the_least_thinking_is_kept_exactly():
    answer = Reasoner(tiny_sampler(max_positions=256)).ask("2+2?", min_thinking=20, thinking=40, max_tokens=60)
    assert 20 <= answer.usage.reasoning_tokens <= 40
    direct = Reasoner(tiny_sampler(max_positions=256)).ask("2+2?", min_thinking=20, effort="none", max_tokens=5)
    assert direct.usage.reasoning_tokens == 0


def test_a_run_without_deltas_gives_the_same_answer():
    whole = events(direct(), ScriptedSampler([THOUGHT]), ledger=Ledger(delivery=Delivery(deltas=False)))
    assert kinds(whole) == ["Asked", "Started", "Done", "Answered"]
    assert len(whole) == 4
    assert whole[-1].answer.text == THOUGHT.text
