"""search: answers go on from the steps of better ones, and the best that was finished is given."""

import asyncio
from random import Random

import pytest

from ponder.dialogue.messages import Message, Reasoning, Role, Text
from ponder.sampler.endpoint import EndpointSampler
from ponder.sampler.protocol import Completion, Done
from ponder.tasks.protocol import Grade
from ponder.testing.endpoint import StubEndpoint
from ponder.testing.scripted import ScriptedSampler
from ponder.testing.tiny import tiny_sampler
from ponder.think import Ask, Ledger, Reasoner, events_of, parse_strategy
from ponder.think.events import Cut, Graded
from ponder.think.strategies.best_of import best_of
from ponder.think.strategies.search import search
from ponder.think.tree import SearchMethod, rebase_shares
from ponder.types import Budget, InvalidRequest, Origin, Phase, SamplerError, Segment, StopReason, Usage

METHODS = list(SearchMethod)
STEPS = 16


class Walker:
    """A sampler with tokens whose thoughts are `STEPS` lines, each one digit, and whose answer is
    how many of them are 0 before the first that is not: one error spoils the rest. It goes on from any prefix.

    choices: how many digits there are.
    unfinished: seeds whose samples are cut off. failing: seeds whose calls fail.
    """

    name = "walker"

    def __init__(self, unfinished=(), failing=(), choices=2):
        self.choices = choices
        self._tiny = tiny_sampler()
        self.capabilities, self.unfinished, self.failing = self._tiny.capabilities, set(unfinished), set(failing)
        self.calls, self.prompts, self.seeds = 0, [], []

    async def stream(self, request, delivery=None):
        self.calls += 1
        encode, think_close = self._tiny.tokenizer.encode, self._tiny.format.phase_tokens.think_close
        known = request.prompt if isinstance(request.prompt[0], int) else tuple(encode("?\n"))
        before = self._tiny.tokenizer.decode(known).removeprefix("?\n")
        for index in range(request.n):
            seed = request.params.seed + index
            self.prompts.append(before)
            self.seeds.append(seed)
            await asyncio.sleep(0)
            if seed in self.failing:
                raise SamplerError("no route")
            rng = Random(f"{seed} {before}")
            said = "".join(f"{rng.randrange(self.choices)}\n" for _ in range(STEPS - before.count("\n")))
            answer = str(STEPS - len((before + said).replace("\n", "").lstrip("0")))
            ids = (*encode(said), think_close, *encode(answer))
            whole, ids = len(ids), ids[: request.params.max_tokens]
            thought = min(len(ids), whole - len(encode(answer)))
            segment = Segment(
                prompt_ids=known,
                ids=ids,
                logprobs=(-0.1,) * len(ids),
                phases=(Phase.THINK,) * thought + (Phase.ANSWER,) * (len(ids) - thought),
                origins=(Origin.SAMPLED,) * len(ids),
                weights_version=0,
            )
            cut = seed in self.unfinished or len(ids) < whole
            reason = StopReason.LENGTH if cut else StopReason.END
            message = Message(Role.ASSISTANT, (Reasoning(said), Text(answer)))
            usage = Usage(0, len(ids), thought)
            yield Done(index, Completion(message=message, stop_reason=reason, usage=usage, segments=(segment,)))


def zeros(answer):
    return Grade(score=int(answer) / STEPS)


def walk(strategy, sampler=None, budget=None, seed=0, verifier=zeros):
    sampler = sampler or Walker()
    ask = Ask.of("?", verifier=verifier, seed=seed)

    async def run():
        return [event async for event in events_of(strategy, ask, sampler, Ledger(budget))]

    return asyncio.run(run())[-1].answer, sampler


@pytest.mark.parametrize("method", METHODS)
def test_it_finds_what_as_many_single_answers_do_not(method):
    """Sixteen steps, each right by half: one in 65,536 answers is right, and 64 are drawn."""
    found = [int(walk(search(method=method, width=2, branch=4, depth=8), seed=100 * seed)[0].text) for seed in range(9)]
    single = [int(walk(best_of(samples=64, by="verifier"), seed=100 * seed)[0].text) for seed in range(9)]
    assert sum(found) >= sum(single) + 9


@pytest.mark.parametrize("method", METHODS)
def test_answers_go_on_from_the_steps_of_others_and_hold_the_whole_thought(method):
    answer, sampler = walk(search(method=method, width=2, branch=3, depth=3))
    demand = search(method=method, width=2, branch=3, depth=3).demand(Ask.of("?", verifier=zeros))
    assert len(sampler.prompts) == len(answer.completions) == demand.in_all == 18
    thoughts = {each.reasoning for each in answer.completions}
    for prompt in filter(None, sampler.prompts):
        assert prompt.endswith("\n")
        assert any(thought.startswith(prompt) for thought in thoughts)
    assert all(each.reasoning.count("\n") == STEPS for each in answer.completions)
    assert answer.reasoning.startswith("0\n" * int(answer.text))


@pytest.mark.parametrize("method", METHODS)
def test_seeds_repeat_and_each_answer_has_its_own(method):
    strategy = search(method=method, width=2, branch=2, depth=3)
    (answer, sampler), (again, other) = walk(strategy, seed=7), walk(strategy, seed=7)
    assert sorted(sampler.seeds) == list(range(7, 7 + 12))
    assert [each.reasoning for each in answer.completions] == [each.reasoning for each in again.completions]
    assert sorted(sampler.prompts) == sorted(other.prompts)
    assert walk(strategy, seed=99)[0].reasoning != answer.reasoning


def test_beam_goes_on_from_the_best_of_all_and_dvts_from_the_best_of_each_tree():
    for method, trees in (("beam", 1), ("dvts", 3)):
        answer, sampler = walk(search(method=method, width=3, branch=4, depth=2), Walker(choices=4))
        first, second = answer.completions[:12], sampler.prompts[12:]
        best = []
        for part in range(trees):
            values = {}
            for each in first[part * 12 // trees : (part + 1) * 12 // trees]:
                values.setdefault(each.reasoning[:2], []).append(int(each.text))
            ranked = sorted(values, key=lambda step: -sum(values[step]) / len(values[step]))
            best += ranked[: 3 // trees]
        assert second == [step for step in best for _ in range(4)]


def test_a_verified_answer_ends_the_search():
    answer, sampler = walk(search(width=2, branch=2, depth=4), verifier=lambda text: Grade(score=1.0))
    assert (len(sampler.prompts), answer.cut) == (4, None)


@pytest.mark.parametrize("method", METHODS)
def test_a_path_that_never_finished_does_not_win(method):
    worst = lambda text: Grade(score=0.0)  # noqa: E731
    unfinished = set(range(12)) - {5}
    answer, _ = walk(search(method=method, width=2, branch=2, depth=3), Walker(unfinished), verifier=worst)
    assert answer.stop_reason is StopReason.END
    assert sum(each.answers for each in answer.completions) == 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("budget", "cut"), [(Budget(samples=7), Cut.SAMPLES), (Budget(tokens=150), Cut.TOKENS)])
def test_out_of_budget_the_best_so_far_says_why(method, budget, cut):
    answer, _ = walk(search(method=method, width=2, branch=2, depth=9), Walker(), budget)
    assert answer.cut is cut
    assert answer.stop_reason is StopReason.END
    assert int(answer.text) == max(int(each.text) for each in answer.completions if each.answers)


def test_a_later_failure_leaves_what_was_found():
    answer, _ = walk(search(width=1, branch=2, depth=4), Walker(failing={2, 3}))
    assert answer.cut is Cut.FAILED
    assert answer.stop_reason is StopReason.END
    with pytest.raises(SamplerError, match="no route"):
        walk(search(width=1, branch=2, depth=4), Walker(failing={0, 1}))


def test_without_a_verifier_likelihood_is_the_value_and_it_can_be_asked_for():
    for strategy, verifier in ((search(depth=2), None), (search(depth=2, value="likelihood"), zeros)):
        answer, _ = walk(strategy, verifier=verifier)
        grades = [event.grade.score for event in answer.events if isinstance(event, Graded)]
        assert len(grades) == 32
        assert grades == pytest.approx([0.9048374] * 32)


def test_thoughts_that_end_are_not_gone_on_from():
    answer, sampler = walk(search(method="rebase", width=2, branch=2, depth=30))
    assert max(prompt.count("\n") for prompt in sampler.prompts) == STEPS - 1
    assert len(answer.completions) < 120
    assert answer.cut is None


def test_rebase_shares_all_by_the_softmax_of_values():
    assert rebase_shares([0.5, 0.5, 0.5, 0.5], 8) == [2, 2, 2, 2]
    assert rebase_shares([1.0, 0.0], 8) == [8, 0]
    assert rebase_shares([0.4, 0.2, 0.0], 12) == [8, 3, 1]
    assert rebase_shares([0.4, 0.2], -1) == [0, 0]
    assert rebase_shares([], 4) == []


def test_uct_tries_what_was_tried_seldom_and_prefers_what_is_better():
    strategy = search(method="mcts", width=2, branch=4, depth=8)
    _, even = walk(strategy, seed=1, verifier=lambda text: Grade(score=0.5))
    assert [prompt.count("\n") for prompt in even.prompts[:12]] == [0] * 4 + [1] * 8
    assert len(set(even.prompts[:12])) == 3
    _, sampler = walk(strategy, seed=1)
    zero, one = (sum(prompt.startswith(first) for prompt in sampler.prompts) for first in "01")
    assert zero > 2 * one > 0


@pytest.mark.property
def test_random_budgets_are_kept_and_the_best_that_was_finished_is_given():
    rng = Random(0)
    for _ in range(60):
        width, branch, depth = (rng.randint(1, 3) for _ in range(3))
        strategy = search(method=rng.choice(METHODS), width=width, branch=branch, depth=depth)
        budget = Budget(tokens=rng.choice((None, rng.randint(1, 900))), samples=rng.choice((None, rng.randint(1, 30))))
        answer, _ = walk(strategy, Walker(), budget, seed=rng.randrange(99))
        assert answer.usage.completion_tokens <= (budget.tokens or 10**9)
        assert len(answer.completions) <= min(budget.samples or 10**9, width * branch * depth)
        finished = [int(each.text) for each in answer.completions if each.answers]
        assert (answer.stop_reason is StopReason.END) == bool(finished)
        assert not finished or int(answer.text) == max(finished)


@pytest.mark.parametrize("method", METHODS)
def test_cancelled_it_gives_the_best_so_far_and_begins_nothing_more(method):
    sampler, events = Walker(), []

    async def run():
        strategy, ask = search(method=method, width=2, branch=2, depth=9), Ask.of("?", verifier=zeros, seed=1)
        async for event in events_of(strategy, ask, sampler):
            events.append(event)
            if sum(isinstance(each, Graded) for each in events) == 6 and isinstance(event, Graded):
                asyncio.current_task().cancel()
                begun.append(sampler.calls)

    begun = []
    asyncio.run(run())
    answer = events[-1].answer
    assert answer.cut is Cut.CANCELLED
    assert sampler.calls == begun[0]
    assert int(answer.text) == max(int(each.text) for each in answer.completions if each.answers)


# Refused --------------------------------------------------------------------------------------------------------------


def test_samplers_without_tokens_are_refused_by_name():
    for text in ("search", "consensus(search(width=2), samples=2)"):
        with pytest.raises(InvalidRequest, match=r"search@.* \(scripted gives none\): use a local model"):
            Reasoner(ScriptedSampler(["1"])).ask("x", strategy=text)
    with StubEndpoint(["1"]) as stub, pytest.raises(InvalidRequest, match=r"stub gives none"):
        Reasoner(EndpointSampler(stub.url, "stub")).ask("x", strategy="search(method='mcts')")
    assert stub.requests == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("search(method='luck')", "one of beam, dvts, rebase, mcts"),
        ("search(value='luck')", "verifier or likelihood"),
        ("search(width=0)", "width of search must be at least 1"),
        ("search(branch=0)", "branch of search must be at least 1"),
        ("search(depth=-1)", "depth of search must be at least 1"),
        ("search(temperature=0.0)", "same answer every time"),
        ("search(direct)", "takes no strategy inside it"),
    ],
)
def test_what_it_cannot_do_is_refused(text, complaint):
    with pytest.raises(InvalidRequest, match=complaint):
        parse_strategy(text)


def test_a_verifier_that_is_asked_for_must_be_there():
    with pytest.raises(InvalidRequest, match=r"search@64 has no verifier"):
        search(value="verifier").demand(Ask.of("x"))
    with pytest.raises(InvalidRequest, match="same answer every time"):
        search().demand(Ask.of("x", temperature=0.0))


# Over the engine ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_local_model_finds_the_steps_before_in_its_cache(method):
    sampler = tiny_sampler(max_positions=512)
    newline = sampler.tokenizer.encode("\n")[0]
    bias = [(newline, 3.0), *((id, -100.0) for id in sampler.tokenizer.control.values())]
    settings = {"logit_bias": bias, "thinking": 40, "max_tokens": 48, "seed": 3}

    def asked():
        text = f"search(method='{method}', width=2, branch=2, depth=3)"
        return Reasoner(sampler).ask(
            "2+2?", strategy=text, verifier=lambda text: Grade(score=len(text) % 7 / 8), **settings
        )

    answer, again = asked(), asked()
    assert [each.segment.ids for each in again.completions] == [each.segment.ids for each in answer.completions]
    length = min(len(each.segment.prompt_ids) for each in answer.completions)
    longer = [each for each in answer.completions if len(each.segment.prompt_ids) > length]
    assert len(longer) >= 6
    for each in (each for each in longer if each.usage.prompt_tokens):  # those that follow share its prompt
        whole = each.segment.prompt_ids + each.segment.ids
        assert len(whole) - length <= 48
        assert each.usage.cached_tokens >= (len(each.segment.prompt_ids) - 1) // 16 * 16
    assert answer.usage.completion_tokens == sum(each.usage.completion_tokens for each in answer.completions)
