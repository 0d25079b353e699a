"""delegate: one model plans and writes, another carries the steps out, results are checked, failures planned again."""

import asyncio
import json

import pytest

from ponder.sampler.endpoint import EndpointSampler
from ponder.tasks.protocol import Grade
from ponder.testing.endpoint import StubEndpoint
from ponder.testing.scripted import Say, ScriptedSampler
from ponder.testing.tiny import tiny_sampler
from ponder.think import Ask, Ledger, Reasoner, delegate, events_of, parse_strategy
from ponder.think.events import Cut, Delta, Graded, Planned, Started, bills, pieces
from ponder.types import Budget, InvalidRequest, Usage

PLAN = json.dumps(
    [
        {"name": "a", "task": "6 * 7", "expects": "integer"},
        {"name": "b", "task": "6 * 70", "expects": "integer"},
        {"name": "c", "task": "{a} + {b}", "needs": ["a", "b"], "expects": "integer"},
    ]
)


def product(conversation, _):
    """A worker that multiplies and adds."""
    return Say(str(eval(conversation[-1].text.split("\n")[0], {})), seconds=0.01)


def planner(*plans, answer="It is {c}."):
    """A planner that writes these plans one after the other, and then the answer, with the result in the place of
    its name."""
    plans = iter(plans)

    def line(conversation, _):
        words = conversation[-1].text
        if words.endswith("Answer it."):
            done = dict(line.split(": ", 1) for line in words.splitlines() if " = " in line)
            return answer.format_map({name: text.rpartition(" = ")[2] for name, text in done.items()} | {"q": words})
        return next(plans)

    return ScriptedSampler(line, name="large")


def worker(line=product):
    return ScriptedSampler(line, name="small")


def test_a_plan_is_carried_out_and_the_planner_writes_the_answer():
    large, small = planner(PLAN), worker()
    answer = Reasoner(large).ask("6 times 77?", strategy=delegate(workers=small))
    assert answer.text == "It is 462."
    (planned,) = [event for event in answer.events if isinstance(event, Planned)]
    assert planned.steps[2] == "c: {a} + {b} -> integer"
    assert [request.prompt[0].text.split("\n")[0] for request in small.requests] == ["6 * 7", "6 * 70", "42 + 420"]
    assert not any("77" in request.prompt[0].text for request in small.requests)  # a worker sees its step alone
    assert "a: 6 * 7 = 42\nb: 6 * 70 = 420\nc: 42 + 420 = 462" in large.requests[-1].prompt[-1].text


def test_the_bill_is_split_by_role_and_model():
    large, small = planner(PLAN), worker()
    answer = Reasoner(large).ask("6 times 77?", strategy=delegate(workers=small))
    split = bills(answer.events)
    assert {(each.role, each.model) for each in split} == {("plan", "large"), ("worker", "small"), ("write", "large")}
    by_model = {name: Usage() for name in ("large", "small")}
    for account, usage in split.items():
        by_model[account.model] += usage
    assert by_model == {"large": large.counted, "small": small.counted}
    assert answer.usage == large.counted + small.counted


def test_steps_run_at_once_where_they_do_not_need_each_other():
    under_way = [0]
    most = [0]

    def line(conversation, index):
        return Say(product(conversation, index).text, seconds=0.02)

    class Watched(ScriptedSampler):
        async def stream(self, request, delivery):
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
            async for event in super().stream(request, delivery):
                yield event
            under_way[0] -= 1

    Reasoner(planner(PLAN)).ask("?", strategy=delegate(workers=Watched(line)))
    assert most[0] == 2
    most[0] = 0
    Reasoner(planner(PLAN)).ask("?", strategy=delegate(workers=Watched(line), at_once=1))
    assert most[0] == 1


def test_a_failed_step_is_planned_again_with_what_is_done_in_view():
    lines = {"6 * 7": "42", "6 * 70": "many", "6 * 35 * 2": "420", "42 + 420": "462"}
    small = worker(lambda conversation, _: lines[conversation[-1].text.split("\n")[0]])
    again = '[{"name": "b", "task": "6 * 35 * 2"}, {"name": "c", "task": "{a} + {b}"}]'
    large = planner(PLAN, again)
    answer = Reasoner(large).ask("6 times 77?", strategy=delegate(workers=small))
    assert answer.text == "It is 462."
    words = large.requests[1].prompt[-1].text
    assert "These steps are done:\na: 6 * 7 = 42" in words
    assert "These steps failed:\nb: 6 * 70 = many ('many' is not integer)" in words
    assert len(small.requests) == 4  # what needs a failed step is not begun


def test_replans_are_bounded_and_the_answer_is_written_from_what_there_is():
    small = worker(lambda *_: "many")
    large = planner(PLAN, "no plan", PLAN, answer="no idea")
    answer = Reasoner(large).ask("?", strategy=delegate(workers=small, replans=2))
    assert answer.text == "no idea"
    assert [event.role for event in answer.events if isinstance(event, Started)].count("plan") == 3
    assert "it is not a JSON list" in large.requests[2].prompt[-1].text


def test_a_check_grades_each_result_given_its_task():
    seen = []

    def check(task, result):
        seen.append((task, result))
        return Grade(score=float(result != "420"), why="no", usage=Usage(prompt_tokens=3))

    answer = Reasoner(planner(PLAN, PLAN, answer="?")).ask("?", strategy=delegate(workers=worker(), check=check))
    assert seen[:2] == [("6 * 7", "42"), ("6 * 70", "420")]
    assert [event.grade.solved for event in answer.events if isinstance(event, Graded)][:2] == [True, False]
    assert ("delegate@8", "verifier", "") in bills(answer.events)


def test_a_worker_may_be_a_strategy_which_has_the_step_s_check():
    wrong_first = iter(["forty", "42"] * 9)
    small = worker(lambda *_: next(wrong_first))
    plan = '[{"name": "a", "task": "6 * 7", "expects": "integer"}]'
    answer = Reasoner(planner(plan, answer="{a}")).ask(
        "?", strategy=delegate(parse_strategy("refine(samples=2)"), workers=small)
    )
    assert answer.text == "42"
    assert {each.strategy for each in bills(answer.events)} == {"delegate@8", "delegate@8/refine@2"}


def test_it_stands_inside_other_strategies():
    plan = '[{"name": "a", "task": "6 * 7"}]'
    large = ScriptedSampler(lambda conversation, _: "42" if conversation[-1].text.endswith("Answer it.") else plan)
    answer = Reasoner(large).ask("?", strategy="consensus(delegate(steps=2), samples=3)", seed=1)
    assert (answer.text, answer.votes[0].count) == ("42", 2)  # the third is not needed
    assert parse_strategy("consensus(delegate(steps=2), samples=3)").demand(Ask.of("?")).depth == 2
    seeds = [request.params.seed for request in large.requests]
    assert len(set(seeds)) == len(seeds)


def test_lines_are_a_plan_for_models_that_were_taught_them():
    large, small = planner("a: 6 * 7 -> integer\nb: {a} + 1", answer="{b}"), worker()
    answer = Reasoner(large).ask("?", strategy=delegate(workers=small, plan="lines", replans=0))
    assert large.requests[0].prompt[-1].text == "?\n\nPlan it."
    assert small.requests[1].prompt[0].text == "42 + 1"
    assert answer.usage == large.counted + small.counted


def test_the_answer_streams_as_it_is_written_and_carries_the_whole_bill():
    async def streamed(sampler, strategy):
        return [piece async for piece in pieces(events_of(strategy, Ask.of("?"), sampler))]

    large, small = planner(PLAN), worker()
    *deltas, done = asyncio.run(streamed(large, delegate(workers=small)))
    assert [type(delta) for delta in deltas] == [Delta] * 3
    assert "".join(delta.text for delta in deltas) == "It is 462."
    assert done.completion.usage == large.counted + small.counted


def test_one_of_the_models_may_be_an_endpoint():
    with StubEndpoint(product, dialect="vllm") as stub:
        remote = EndpointSampler(stub.url, "small", dialect="vllm", backoff=0.0)
        large = planner(PLAN)
        answer = Reasoner(large).ask("?", strategy=delegate(workers=remote))
        assert answer.text == "It is 462."
        assert answer.usage == large.counted + stub.counted
        assert parse_strategy(f"delegate(workers='vllm+{stub.url}#small')").workers.name == "small"


def test_a_local_model_works_for_a_remote_planner():
    plan = '[{"name": "a", "task": "sing"}, {"name": "b", "task": "hum"}]'
    said = lambda conversation, _: "la" if conversation[-1].text.endswith("Answer it.") else plan  # noqa: E731
    small = tiny_sampler(max_positions=512)
    with StubEndpoint(said, dialect="vllm") as stub:
        remote = EndpointSampler(stub.url, "large", dialect="vllm", backoff=0.0)
        answer = Reasoner(remote).ask("?", strategy=delegate(workers=small), max_tokens=8)
    assert small.num_generations == 0
    assert {each.role for each in bills(answer.events) if each.model == "tiny"} == {"worker"}


@pytest.mark.parametrize(
    ("budget", "cut"), [(Budget(samples=2), Cut.SAMPLES), (Budget(samples=1), Cut.SAMPLES), (Budget(tokens=9), None)]
)
def test_a_small_budget_is_kept(budget, cut):
    large, small = planner(PLAN, PLAN, answer="?"), worker()
    answer = Reasoner(large).ask("?", strategy=delegate(workers=small, replans=0), budget=budget)  # 3: no room to plan
    assert answer.cut is cut
    assert len(large.requests) + len(small.requests) <= (budget.samples or 99)
    assert answer.usage.completion_tokens <= (budget.tokens or 999)


def test_cancelled_during_the_steps_nothing_more_begins():
    large, small = planner(PLAN), worker(lambda *_: Say("1 " * 50, seconds=1.0))
    begun = []

    async def run():
        events = events_of(delegate(workers=small), Ask.of("?"), large, Ledger())
        try:
            async for event in events:
                begun.append(event)
                if isinstance(event, Started) and event.role == "worker":
                    asyncio.current_task().cancel()
        finally:
            await events.aclose()

    async def main():
        await asyncio.wait([asyncio.ensure_future(run())])

    asyncio.run(main())
    assert len(large.requests) == 1
    assert len(small.requests) <= 2


def test_what_it_cannot_take_is_refused():
    with pytest.raises(InvalidRequest, match="one of json, lines"):
        delegate(plan="yaml")
    with pytest.raises(InvalidRequest, match="steps and at_once of at least 1"):
        delegate(steps=0)
    with pytest.raises(InvalidRequest, match="needs a conversation"):
        delegate().demand(Ask(prompt=(1, 2)))
    with pytest.raises(InvalidRequest, match="workers must be the name of a model"):
        parse_strategy("delegate(workers=3)")
    with pytest.raises(InvalidRequest, match="there is no model 'nowhere'"):
        parse_strategy("delegate(workers='nowhere')")
    with pytest.raises(InvalidRequest, match="check must be a function of a file"):
        parse_strategy("delegate(check='x.py:f')", files=False)
    assert delegate(steps=3).demand(Ask.of("?")).in_all == 2 * (1 + 3) + 1
