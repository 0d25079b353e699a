"""council: in turns, voices share one context, hear each other, and end when they agree or are out of turns; together,
they are one sample of a model that was taught it."""

import asyncio
from dataclasses import replace
from random import Random

import pytest

from ponder.dialogue import Message, PonderFormat, Reasoning, Role, Text
from ponder.sampler.endpoint import EndpointSampler
from ponder.sampler.local import LocalSampler
from ponder.tasks.protocol import Grade, Problem
from ponder.tasks.registry import load_task
from ponder.testing.endpoint import Fault, StubEndpoint
from ponder.testing.scripted import Say, ScriptedSampler
from ponder.testing.tiny import ByteTokenizer, ParrotModel, tiny_sampler
from ponder.think import Ask, Reasoner, answer_of, council, parse_strategy
from ponder.think.events import Cut, Noted, Recalled, Started, Voted, bills
from ponder.train.data.packing import council_targets
from ponder.types import Budget, InvalidRequest, SamplerError, ThinkingLimits, Usage

ASK = Ask.of("6 times 7?")


def scripted(*lines, **options):
    return ScriptedSampler(list(lines), **options)


def prompts(sampler):
    return [request.prompt[-1].text for request in sampler.requests]


def roles(answer):
    return [event.role for event in answer.events if isinstance(event, Started)]


def test_each_voice_hears_what_all_have_thought_and_said_before_it():
    sampler = scripted(Say("41", "Six sevens."), Say("42", "No:\n35 + 7."), Say("42"), Say("42"), Say("42"), Say("42"))
    answer = Reasoner(sampler).ask("6 times 7?", strategy="council(how='turns', voices=3)")
    assert answer.text == "42"
    first, second, third, again = prompts(sampler)[:4]
    assert first.startswith("6 times 7?\n\n3 voices answer this together")
    assert "You are voice 2" in second
    assert "Voice 1 thought:\n> Six sevens.\nVoice 1 answered:\n> 41" in second
    assert third.startswith(second[: second.index("You are")])  # the context that they share only grows
    assert "Voice 2 thought:\n> No:\n> 35 + 7.\nVoice 2 answered:\n> 42" in third
    assert again.index("Voice 1 thought") < again.index("Voice 2 thought") < again.index("Voice 3 answered")


def test_what_a_voice_says_is_quoted_so_that_it_cannot_speak_for_another_one():
    sampler = scripted(Say("41\nVoice 2 answered:\nIt is 41."), "42")
    Reasoner(sampler).ask("6 times 7?", strategy="council(how='turns', voices=2, rounds=1)")
    assert "> Voice 2 answered:\n> It is 41." in prompts(sampler)[1]


def test_a_round_in_which_all_agree_is_the_last():
    sampler = scripted("41", "42", "42", "42.0")
    answer = Reasoner(sampler).ask("6 times 7?", strategy="council(how='turns', voices=2, rounds=9)")
    assert (answer.text, answer.margin, answer.cut) == ("42.0", 1.0, None)
    assert roles(answer) == ["voice 1", "voice 2", "voice 1", "voice 2"]
    assert [event.votes[0].count for event in answer.events if isinstance(event, Voted)] == [1, 2]
    assert [completion.text for completion in answer.completions] == ["41", "42", "42", "42.0"]


def test_out_of_rounds_the_last_answers_of_all_vote_and_a_tie_goes_to_what_was_joined_last():
    assert run(council(how="turns", voices=3, rounds=1), scripted("1", "2", "1")).text == "1"
    assert run(council(how="turns", voices=2, rounds=2), scripted("1", "2", "2", "3")).text == "3"
    answer = run(council(how="turns", voices=3, rounds=2), scripted("1", "1", "2", "3", "2", "3"))
    assert (answer.text, answer.votes[0].samples, answer.margin) == ("3", (3, 5), 1 / 3)


def test_an_answer_that_the_verifier_accepts_ends_it():
    ask = Ask.of("6 times 7?", verifier=lambda text: Grade(score={"42": 1.0, "40": 0.5}.get(text, 0.0)))
    answer = run(council(how="turns", voices=3), scripted("41", "42"), ask=ask)
    assert (answer.text, len(answer.completions), answer.votes) == ("42", 2, ())
    assert run(council(how="turns", voices=3, rounds=1), scripted("41", "40", "7"), ask=ask).text == "40"


def test_a_judge_is_billed_beside_the_voices():
    line = lambda conversation, _: "9" if "from 0 to 10" in conversation[-1].text else "42"  # noqa: E731
    sampler = ScriptedSampler(line)
    answer = run(council(how="turns", voices=2, rounds=1, judge="self"), sampler)
    assert {each.role for each in bills(answer.events)} == {"voice 1", "voice 2", "judge"}
    assert answer.usage == sampler.counted
    assert council(how="turns", voices=2, rounds=1, judge="self").demand(ASK).in_all == 4


def test_the_bill_is_split_by_voice_and_equals_the_count():
    sampler = scripted("1", "2", "3", "4")
    answer = run(council(how="turns", voices=2), sampler)
    split = bills(answer.events)
    assert {each.role for each in split} == {"voice 1", "voice 2"}
    assert sum(split.values(), Usage()) == answer.usage == sampler.counted


def test_a_voice_may_be_a_strategy_and_a_council_stands_inside_others():
    sampler = ScriptedSampler(lambda *_: "42")
    answer = Reasoner(sampler).ask(
        "?", strategy="consensus(council(consensus(samples=3), how='turns', voices=2), samples=2)", seed=5
    )
    assert answer.text == "42"
    assert (
        parse_strategy("consensus(council(consensus(samples=3), how='turns', voices=2), samples=2)").demand(ASK).depth
        == 3
    )
    (path,) = {event.strategy for event in answer.events if isinstance(event, Started)}
    assert path == "consensus@2/council@2/consensus@3"
    seeds = [request.params.seed for request in sampler.requests]
    assert len(set(seeds)) == len(seeds)


def test_what_no_longer_fits_is_noted_and_recalled_by_the_words_of_the_last_answer():
    long = "nine pears " + "and so on " * 40
    sampler = scripted("seven apples", long, "seven apples?", "42", "42", "42", window=240)
    answer = Reasoner(sampler).ask("How much fruit?", strategy="council(how='turns', voices=3, rounds=2)")
    noted = [note.source for event in answer.events if isinstance(event, Noted) for note in event.notes]
    assert noted[:1] == ["voice 1, turn 1"]
    assert len(noted) == len(set(noted))  # each turn once
    recalled = [event for event in answer.events if isinstance(event, Recalled)]
    assert recalled[0].found[0].note.text.startswith("seven apples")
    fourth = prompts(sampler)[3]
    assert "Voice 1 answered:" not in fourth
    assert "voice 1, turn 1]\n> seven apples" in fourth  # as quoted data
    assert "Voice 2 answered:\n> nine pears" in fourth


def test_of_a_turn_whose_thinking_does_not_fit_the_answer_stays():
    sampler = scripted(Say("41", "hmhmhmhmhmhm " * 90), "42", window=240)
    Reasoner(sampler).ask("?", strategy="council(how='turns', voices=2, rounds=1)")
    assert "Voice 1 answered:\n> 41" in prompts(sampler)[1]
    assert "Voice 1 thought" not in prompts(sampler)[1]


def test_an_empty_turn_is_passed_over():
    sampler = scripted("", "42", "", "42")
    answer = run(council(how="turns", voices=2), sampler)
    assert answer.text == "42"
    assert "Voice 1 answered" not in prompts(sampler)[1]


@pytest.mark.parametrize(("budget", "cut"), [(Budget(samples=3), Cut.SAMPLES), (Budget(tokens=7), Cut.TOKENS)])
def test_out_of_budget_the_best_so_far_says_why(budget, cut):
    sampler = ScriptedSampler(lambda *_: next(lines))
    lines = iter("121345678")
    answer = run(council(how="turns", voices=4, rounds=4), sampler, budget=budget)
    assert answer.cut is cut
    assert answer.text == "1"
    assert answer.usage.completion_tokens <= (budget.tokens or 99)


def test_cancelled_the_voices_that_have_spoken_answer():
    async def cancelled():
        task = asyncio.ensure_future(
            answer_of(council(how="turns", voices=3), ASK, scripted("41", Say("42", seconds=60)))
        )
        await asyncio.sleep(0.1)
        task.cancel()
        return await task

    answer = asyncio.run(cancelled())
    assert (answer.text, answer.cut, answer.unbilled) == ("41", Cut.CANCELLED, 0)


def test_a_voice_of_an_endpoint_that_fails_leaves_what_was_said():
    with StubEndpoint(lambda *_: "7", dialect="vllm", faults=[None, Fault(status=401)]) as stub:
        sampler = EndpointSampler(stub.url, "stub", dialect="vllm", backoff=0.0)
        answer = run(council(how="turns", voices=3), sampler)
        assert (answer.text, answer.cut, len(answer.completions)) == ("7", Cut.FAILED, 1)
    with StubEndpoint(dialect="vllm", faults=[Fault(status=401)]) as stub:
        sampler = EndpointSampler(stub.url, "stub", dialect="vllm", backoff=0.0)
        with pytest.raises(SamplerError, match="status 401"):
            run(council(how="turns", voices=3), sampler)


def test_the_engine_finds_the_shared_context_in_its_cache():
    sampler = tiny_sampler(max_positions=4096)
    answer = run(council(how="turns", voices=3, rounds=1, max_tokens=64), sampler)
    second, third = (each.usage for each in answer.completions[1:])
    assert third.cached_tokens > second.prompt_tokens - 150  # all but the words to voice 2
    assert sampler.num_generations == 0


def test_what_it_cannot_take_is_refused():
    with pytest.raises(InvalidRequest, match="voices of at least 2 and rounds of at least 1"):
        council(how="turns", voices=1)
    with pytest.raises(InvalidRequest, match="one of together, turns"):
        council(how="choir")
    with pytest.raises(InvalidRequest, match="take no turns"):
        council(rounds=3)
    with pytest.raises(InvalidRequest, match="needs a conversation"):
        council(how="turns").demand(Ask(prompt=(1, 2)))
    with pytest.raises(InvalidRequest, match="n cannot be set"):
        council(how="turns").demand(ASK.override(n=2))
    assert council(how="turns", voices=3, rounds=2).demand(ASK).in_all == 6


def run(strategy, sampler, *, ask=ASK, budget=None):
    return Reasoner(sampler).ask(ask.prompt, strategy=strategy, budget=budget, verifier=ask.verifier)


# Together -------------------------------------------------------------------------------------------------------------


def taught(voices=4, said=2):
    """A model that was taught councils, and multiplies two numbers in one of `said` voices."""
    tokenizer, form = ByteTokenizer(), PonderFormat(ByteTokenizer())
    problem = Problem(task="products", question="12*34", answer="408", metadata={"factors": [12, 34]})
    shown = load_task("products").demonstrate_council(problem, Random(0), said)
    thought = (Reasoning(shown.opening), Reasoning.council(shown.voices), Reasoning(shown.reasoning))
    message = Message(Role.ASSISTANT, (*thought, Text(shown.answer)))
    ids = form.render([Message.user("12*34"), message]).ids
    model = ParrotModel((), 0, max_positions=512)
    targets = council_targets(ids, form.phase_tokens.council)
    model._said_after = {slot: ids[target] for slot, target in enumerate(targets) if target >= 0}
    model.config = replace(model.config, voices=voices)
    return LocalSampler(model, tokenizer, form, name="taught"), message


def test_a_model_that_was_taught_it_thinks_in_several_voices_at_once():
    sampler, message = taught()
    answer = Reasoner(sampler).ask("12*34", strategy="council(voices=2)")
    assert answer.text == "408"
    council_part = next(part for part in answer.message.parts if isinstance(part, Reasoning) and part.voices)
    said = next(part for part in message.parts if isinstance(part, Reasoning) and part.voices)
    assert [(voice.text, voice.end) for voice in council_part.voices] == [(v.text, v.end) for v in said.voices]
    assert roles(answer) == ["council"]
    assert answer.usage.steps == answer.usage.completion_tokens - answer.usage.parallel_tokens
    assert answer.usage.parallel_tokens > len(said.voices[1].text)
    assert {each.role for each in bills(answer.events)} == {"council"}


def test_it_is_what_such_a_model_does_by_itself_unless_it_may_not():
    sampler, _ = taught()
    assert Reasoner(sampler).ask("12*34").usage.parallel_tokens > 0
    assert Reasoner(sampler).ask("12*34", max_voices=1).usage.parallel_tokens == 0
    assert Reasoner(sampler).ask("12*34", effort="none").usage.parallel_tokens == 0
    one_voice = ThinkingLimits(cap=200, voices=1)
    assert Reasoner(sampler).ask("12*34", thinking=one_voice).usage.parallel_tokens == 0


def test_a_model_that_was_not_taught_it_is_refused_with_the_reason():
    with pytest.raises(InvalidRequest, match=r"taught to think in no voices together .*council\(how='turns'\)"):
        run(council(), tiny_sampler())
    with pytest.raises(InvalidRequest, match="at most 2 voices together"):
        run(council(voices=3), taught(voices=2)[0])
    with (
        StubEndpoint(lambda *_: "7", dialect="vllm") as stub,
        pytest.raises(InvalidRequest, match="no voices together"),
    ):
        run(council(), EndpointSampler(stub.url, "stub", dialect="vllm"))
    with pytest.raises(InvalidRequest, match="no thinking"):
        run(council(effort="none"), taught()[0])


def test_a_council_together_keeps_a_budget_and_stands_inside_others():
    answer = Reasoner(taught()[0]).ask("12*34", strategy="council(voices=2)", budget=Budget(tokens=60))
    assert answer.usage.completion_tokens <= 60
    answer = Reasoner(taught()[0]).ask("12*34", strategy="consensus(council(voices=2), samples=3)", temperature=0.01)
    assert (answer.text, answer.margin) == ("408", 1.0)
