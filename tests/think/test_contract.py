"""One suite over three back ends: budgets kept exactly, bills that equal the back end's own count, and no call that
begins after a cancel. `bench/budgets.py` draws the runs, and runs more of them."""

import asyncio
from pathlib import Path
from random import Random

import pytest

from ponder.sampler.endpoint import EndpointSampler
from ponder.sandbox.objects import load_object
from ponder.tasks.protocol import Grade, GradeStatus
from ponder.testing.endpoint import Fault, StubEndpoint
from ponder.testing.scripted import Say, ScriptedSampler
from ponder.testing.tiny import tiny_sampler
from ponder.think import Ask, Ledger, Reasoner, events_of, parse_strategy
from ponder.think.events import Account, Cut, Done, Graded, Started, Stopped, bill, bills
from ponder.think.ledger import Spent, TooDeep
from ponder.types import Budget, InvalidRequest, SamplerError, StopReason, Usage

BENCH = Path(__file__).parents[2] / "bench" / "budgets.py"
NESTED = "consensus(best_of(consensus(samples=2), samples=2, by='verifier'), samples=3)"
ASK = Ask.of("What is 6 times 7?", verifier=lambda answer: Grade(score=0.5, usage=Usage(prompt_tokens=7)))


@pytest.fixture(scope="module")
def budgets():
    return {name: load_object(f"{BENCH}:{name}") for name in ("run", "Backend")}


@pytest.mark.property
@pytest.mark.parametrize(("backend", "runs"), [("scripted", 500), ("endpoint", 60), ("engine", 40)])
def test_random_budgets_are_kept_by_strategies_nested_three_deep(budgets, backend, runs):
    for trial in budgets["run"](backend, runs, seed=1):
        wrong = (trial.over_tokens, trial.over_samples, trial.over_depth, trial.after_cancel)
        assert wrong == (0, 0, 0, 0), trial
        if not trial.killed or backend != "endpoint":  # there, what was said and never read is not known
            assert trial.bill_off == 0, trial


def run(text, sampler, budget=None, ask=ASK):
    async def gathered():
        return [event async for event in events_of(parse_strategy(text), ask, sampler, Ledger(budget))]

    return asyncio.run(gathered())


def test_a_killed_stream_of_an_endpoint_is_billed_as_it_counts():
    lines = [Say("7", "hm hm"), Say("8", "one two three four five six")]
    with StubEndpoint(lines, dialect="vllm", faults=[None, Fault(stall_after=4)]) as stub:
        sampler = EndpointSampler(stub.url, "stub", dialect="vllm", backoff=0.0)
        *_, end = cancelled("consensus(direct, samples=5, at_once=1)", sampler, after=1 + 5 + 5)
    answer = end.answer
    assert (answer.text, answer.cut) == ("7", Cut.CANCELLED)
    assert answer.usage == stub.counted == Usage(2 * 6, 5 + 4, 3 + 4)
    assert [each.stop_reason for each in answer.completions] == [StopReason.END, StopReason.ABORTED]


def test_retries_are_billed():
    with StubEndpoint(lambda *_: Say("7"), dialect="vllm", faults=[Fault(status=500), Fault(cut_after=250)]) as stub:
        sampler = EndpointSampler(stub.url, "stub", dialect="vllm", backoff=0.0)
        answer = run("consensus(direct, samples=5, at_once=1, until='settled')", sampler)[-1].answer
    assert answer.usage == stub.counted == Usage(4 * 6, 3 * 2)


def test_a_failed_sample_leaves_the_others():
    with StubEndpoint(lambda *_: Say("7"), dialect="vllm", faults=[None, Fault(status=401)]) as stub:
        sampler = EndpointSampler(stub.url, "stub", dialect="vllm", backoff=0.0, concurrency=1)
        events = run("consensus(direct, samples=5, until='settled', at_once=1)", sampler)
    answer = events[-1].answer
    assert (answer.text, answer.votes[0].count) == ("7", 3)
    (failed,) = [event for event in events if isinstance(event, Stopped)]
    assert failed.cut is Cut.FAILED
    assert "status 401" in failed.why
    assert answer.usage.completion_tokens == stub.counted.completion_tokens


def test_where_every_sample_fails_the_failure_is_raised():
    with StubEndpoint(dialect="vllm", faults=[Fault(status=401)] * 9) as stub:
        sampler = EndpointSampler(stub.url, "stub", dialect="vllm", backoff=0.0)
        with pytest.raises(SamplerError, match="status 401"):
            run("consensus(samples=6)", sampler)


def test_the_bill_is_told_by_strategy_and_role():
    events = run(NESTED, ScriptedSampler(lambda *_: Say("42", "hm")))
    split = bills(events[:-1])
    inner = "consensus@3/best_of@2/consensus@2"
    assert set(split) == {(inner, "sample", "scripted"), ("consensus@3/best_of@2", "verifier", "")}
    checks = sum(isinstance(event, Graded) and event.grade.status is GradeStatus.GRADED for event in events)
    assert split[Account("consensus@3/best_of@2", "verifier", "")] == Usage(prompt_tokens=7 * checks)
    assert sum(split.values(), Usage()) == bill(events[:-1]) == events[-1].answer.usage


def test_every_sample_that_began_has_an_end_in_the_trace():
    events = run(NESTED, ScriptedSampler(lambda *_: "42"), Budget(tokens=30))
    started = [event.sample for event in events if isinstance(event, Started)]
    assert started == list(range(len(started)))
    assert sorted(event.index for event in events if isinstance(event, Done)) == started


def test_a_depth_that_does_not_hold_a_strategy_is_refused_before_anything_runs():
    sampler = ScriptedSampler(lambda *_: "42")
    with pytest.raises(TooDeep, match="consensus@3 runs strategies 3 deep, and the budget's depth is 2"):
        run(NESTED, sampler, Budget(depth=2))
    assert sampler.requests == []
    assert run(NESTED, sampler, Budget(depth=3))[-1].answer.text == "42"


@pytest.mark.parametrize(("budget", "cut"), [(Budget(samples=3), Cut.SAMPLES), (Budget(tokens=5), Cut.TOKENS)])
def test_out_of_budget_the_best_so_far_says_why(budget, cut):
    answer = run("consensus(samples=9, at_once=1)", ScriptedSampler(list("1122334")), budget)[-1].answer
    assert answer.cut is cut
    assert answer.text == "1"
    assert answer.margin is not None


def test_a_spent_ledger_refuses_the_next_call():
    ledger = Ledger(Budget(tokens=5))
    ledger.reserve(2)
    assert ledger.reserve(9).tokens == 1
    assert ledger.cut is Cut.TOKENS
    with pytest.raises(Spent, match="is used up"):
        ledger.reserve(1)


def test_a_slice_comes_back_but_for_what_was_spent():
    ledger = Ledger(Budget(tokens=100, samples=10))
    first, second = ledger.child(2), ledger.child(1)
    assert (first.tokens, second.tokens, ledger.tokens) == (50, 50, 0)
    first.reserve(1)
    first.refund()
    second.refund()
    assert ledger.tokens == 50
    assert ledger.reserve(99).samples == 9


# Cancelling -----------------------------------------------------------------------------------------------------------


def cancelled(text, sampler, after):
    """Cancel a run at its n-th event; its events."""
    events = []

    async def run():
        stream = events_of(parse_strategy(text), ASK, sampler)
        try:
            async for event in stream:
                events.append(event)
                if len(events) == after:
                    asyncio.current_task().cancel()
        finally:
            await stream.aclose()

    async def main():
        await asyncio.wait([asyncio.ensure_future(run())])

    asyncio.run(main())
    return events


@pytest.mark.parametrize("after", [2, 20, 60])
def test_after_a_cancel_nothing_begins_and_the_engine_is_idle(after):
    sampler = tiny_sampler(max_positions=4096)
    events = cancelled("consensus(consensus(samples=2, max_tokens=500), samples=6)", sampler, after)
    assert sampler.num_generations == 0
    places = [place for place, event in enumerate(events) if isinstance(event, Stopped)]
    assert places
    assert not any(isinstance(event, Started) for event in events[places[0] :])
    began = [event.sample for event in events if isinstance(event, Started)]
    assert sorted(event.index for event in events if isinstance(event, Done)) == began


def test_a_cancelled_vote_gives_its_best_so_far_with_the_margin():
    rng = Random(0)
    lines = [Say(str(index % 3), seconds=0.001) for index in range(60)]
    rng.shuffle(lines)
    events = cancelled("consensus(direct, samples=60, until='all')", ScriptedSampler(lines), 120)
    answer = events[-1].answer
    assert answer.cut is Cut.CANCELLED
    assert answer.votes
    assert answer.margin == (answer.votes[0].count - answer.votes[1].count) / sum(vote.count for vote in answer.votes)


# By text --------------------------------------------------------------------------------------------------------------


def test_strategies_nest_in_a_text(tmp_path):
    assert parse_strategy(NESTED).demand(ASK).depth == 3
    (tmp_path / "mine.py").write_text(
        "from ponder.think import direct\n\ndef make(effort='low'):\n    return direct()\n"
    )
    (tmp_path / "check.py").write_text(
        "from ponder.tasks.protocol import Grade\n\ndef check(answer):\n    return Grade(score=float(answer == '2'))\n"
    )
    answer = Reasoner(ScriptedSampler(list("1222"))).ask(
        "x",
        strategy=f"best_of('{tmp_path}/mine.py:make', samples=3, by='verifier', verifier='{tmp_path}/check.py:check')",
    )
    assert answer.text == "2"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("direct(consensus)", "direct takes no strategy inside it"),
        ("consensus(concensus(samples=2))", "did you mean 'consensus'"),
        ("consensus(direct, direct)", "is not a strategy"),
        ("consensus(inner='direct')", "no argument 'inner'"),
        ("consensus(3)", "is not a strategy"),
        ("consensus(direct(temperature='hot'))", "temperature must be float"),
        ("consensus(" * 9 + "direct" + ")" * 9, "more than 8 deep"),
        ("consensus('nowhere.py:make')", "there is no file"),
        ("best_of(by='verifier', verifier='nowhere.py:check')", "there is no file"),
        ("consensus(until='luck')", "one of predict, settled, all"),
        ("consensus(weight='luck')", "one of count, likelihood, self_certainty, verifier"),
        ("consensus(weight='verifier', until='settled')", "set until='all'"),
    ],
)
def test_a_wrong_nesting_is_told_what_is_wrong(text, complaint):
    with pytest.raises(InvalidRequest, match=complaint):
        parse_strategy(text)


def test_a_request_names_no_file_inside_a_strategy_either():
    for text in ("consensus('x.py:make')", "best_of(by='verifier', verifier='os:abort')"):
        with pytest.raises(InvalidRequest, match=r"is not a strategy|server's machine"):
            parse_strategy(text, files=False)
