"""Discard without delay: after a turn its thoughts are gone, and the next turn's prompt is warm."""

import asyncio
import time
from contextlib import aclosing
from dataclasses import replace

import pytest

from ponder.dialogue import (
    CONTROL_TOKENS,
    Message,
    ReasoningPolicy,
    Role,
    Start,
    Text,
    ToolResult,
    load_format,
    train_tokenizer,
)
from ponder.dialogue.jinja import JinjaFormat
from ponder.sampler.local import LocalSampler
from ponder.sampler.protocol import Delta, NextTurn, Request
from ponder.testing.tiny import ByteTokenizer, ParrotModel, tiny_model
from ponder.think import Reasoner
from ponder.tokenizer import Tokenizer
from ponder.types import FormatError, Phase, SamplingParams, StopReason, ThinkingLimits

TOKENIZER = train_tokenizer(["What is six times seven? The answer is forty-two, he said, and so it is.\n" * 9], 384)
FORMAT = load_format(TOKENIZER, "ponder")
TOKENS = FORMAT.phase_tokens
PAGE = 16
OPENING = (Message.system("Be kind and be brief."), Message.user("What is six times seven?"))
SURE = Message.user("Are you sure?")
# What is sampled is text, but seldom the ids with which that text is encoded.
LETTERS = {id for id in range(TOKENIZER.vocab_size) if set(TOKENIZER.token_bytes(id)) <= set(b"the answer")}
SPELLING = tuple((id, -1e6) for id in range(TOKENIZER.vocab_size) if id not in LETTERS)


def babbler(**options):
    """A sampler over a model that says random words."""
    model = tiny_model(vocab_size=TOKENIZER.vocab_size, max_positions=2048)
    return LocalSampler(model, TOKENIZER, FORMAT, **options)


def asked(prompt=OPENING, tokens=40, next_turn=NextTurn.VERBATIM, **fields):
    params = SamplingParams(
        temperature=1.0, seed=3, max_tokens=tokens, thinking=ThinkingLimits(cap=20), logit_bias=SPELLING
    )
    return Request(prompt=prompt, params=params, next_turn=next_turn, **fields)


def sample(sampler, request):
    (completion,) = asyncio.run(sampler.sample(request))
    return completion


def rest(sampler, seconds=2.0):
    """Wait until the engine is idle."""
    end = time.monotonic() + seconds
    while sampler._driver.call(lambda: sampler.num_generations or sampler.engine.has_work).result():
        assert time.monotonic() < end
        time.sleep(0.001)


def watched(sampler):
    """The calls of the engine's methods for next turns, as (name, ids or None)."""
    calls, engine = [], sampler.engine

    def watch(name, at):
        method = getattr(engine, name)

        def call(*arguments, **options):
            calls.append((name, arguments[at]))
            return method(*arguments, **options)

        setattr(engine, name, call)

    for name, at in (("open_next_turn", 0), ("extend_next_turn", 1), ("close_next_turn", 1), ("end_turn", 1)):
        watch(name, at)
    return calls


def guessed(calls):
    """The ids that the engine was given before the turn was over."""
    return [id for name, ids in calls if name in ("open_next_turn", "extend_next_turn") for id in ids]


def carried_on(completion, next_turn, prompt=OPENING):
    """The conversation's next prompt, as the caller would send it."""
    said = completion.message if next_turn is NextTurn.VERBATIM else Message.assistant(completion.text)
    return (*prompt, said, SURE)


def before_the_new_turn(prompt):
    """How many tokens of a next prompt were known before the user spoke."""
    rendered = FORMAT.render(prompt, start=Start.THINK)
    return next(s.begin for s in rendered.spans if s.message_index == len(prompt) - 1 and s.kind == "text")


# The next turn is warm ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("next_turn", [NextTurn.VERBATIM, NextTurn.TEXT])
@pytest.mark.parametrize("tokens", [23, 60, 400])
def test_the_next_turn_finds_all_but_itself_and_its_answer_is_that_of_a_cold_engine(next_turn, tokens):
    sampler = babbler()
    first = sample(sampler, asked(tokens=tokens, next_turn=next_turn))
    assert first.usage.reasoning_tokens == 20
    assert first.text
    rest(sampler)
    request = asked(carried_on(first, next_turn), next_turn=next_turn)
    second, cold = sample(sampler, request), sample(babbler(), request)
    assert second.usage.cached_tokens > before_the_new_turn(request.prompt) - PAGE
    assert cold.usage.cached_tokens == 0
    assert second.segment.ids == cold.segment.ids
    assert second.segment.logprobs == pytest.approx(cold.segment.logprobs, abs=1e-4)
    assert sampler.next_turns.kept == 2


@pytest.mark.parametrize("next_turn", [NextTurn.VERBATIM, NextTurn.TEXT])
def test_of_a_long_answer_most_is_computed_while_it_streams(next_turn):
    sampler = babbler()
    calls = watched(sampler)
    first = sample(sampler, asked(tokens=400, next_turn=next_turn))
    rest(sampler)
    exact = next(ids for name, ids in calls if name == "close_next_turn")
    guess = guessed(calls)
    assert tuple(guess) == tuple(exact[: len(guess)]), "a right guess"
    assert len(exact) - len(guess) < 24
    counters = sampler.engine.stats.counters
    assert counters.next_turn_tokens <= len(exact), "nothing is computed twice"
    assert exact == FORMAT.render(carried_on(first, next_turn), start=Start.NONE).ids[: len(exact)]


def test_a_text_sent_back_is_encoded_anew_so_its_ids_differ_from_those_sampled():
    first = sample(babbler(), asked(tokens=200))
    assert TOKENIZER.encode(first.text) != list(first.message.parts[-1].ids), "else TEXT would be VERBATIM"


@pytest.mark.parametrize("next_turn", [NextTurn.VERBATIM, NextTurn.TEXT])
def test_the_thoughts_are_freed_at_once(next_turn):
    sampler = babbler()
    calls = watched(sampler)
    sample(sampler, asked(tokens=100, next_turn=next_turn))
    rest(sampler)
    (exact,) = (ids for name, ids in calls if name == "end_turn")
    stats = sampler.engine.stats
    assert (stats.pages_used, stats.pages_cached) == (0, len(exact) // PAGE), "the next prompt, and nothing besides"


def test_behind_folded_thoughts_the_next_turn_is_warm_too():
    folding = [(TOKENS.state_open, 0.0), (TOKENS.fold, 0.0)]
    spelling = tuple(pair for pair in SPELLING if pair[0] not in dict(folding))
    request = asked(tokens=300)
    params = replace(request.params, thinking=ThinkingLimits(cap=120), logit_bias=(*spelling, *folding))
    sampler = babbler()
    first = sample(sampler, replace(request, params=params))
    assert len(first.segments) > 1
    assert first.usage.refilled_tokens > 0
    rest(sampler)
    stats = sampler.engine.stats
    following = asked(carried_on(first, NextTurn.VERBATIM))
    assert stats.pages_cached == before_the_new_turn(following.prompt) // PAGE, "of all segments nothing is left"
    second = sample(sampler, following)
    assert second.usage.cached_tokens > before_the_new_turn(following.prompt) - PAGE
    assert second.segment.ids == sample(babbler(), following).segment.ids


def test_an_answer_that_was_cut_at_a_stop_string_is_carried_on_as_it_reads():
    sampler = babbler()
    whole = sample(babbler(), asked(tokens=100)).text
    first = sample(sampler, replace(asked(tokens=100), stop=(whole[40:44],)))
    assert first.stop_reason is StopReason.STOP
    rest(sampler)
    request = asked(carried_on(first, NextTurn.VERBATIM))
    assert sample(sampler, request).usage.cached_tokens > before_the_new_turn(request.prompt) - PAGE


def test_a_client_that_sends_something_else_is_answered_right():
    sampler = babbler()
    first = sample(sampler, asked(tokens=100, next_turn=NextTurn.TEXT))
    rest(sampler)
    for text in (first.text[:30] + "…", "No.", first.text + " And more."):
        request = asked((*OPENING, Message.assistant(text), SURE), next_turn=NextTurn.TEXT)
        assert sample(sampler, request).segment.ids == sample(babbler(), request).segment.ids


def test_a_conversation_says_of_its_second_turn_that_only_the_new_is_computed():
    chat = Reasoner(sampler := babbler()).conversation(system="Be kind and be brief.", max_tokens=120)
    chat.say("What is six times seven?")
    rest(sampler)
    for text in ("Are you sure?", "Good."):
        chat.say(text)
        rest(sampler)
        turn = chat.account[-1]
        assert turn.cached_tokens > before_the_new_turn(chat.messages[:-1]) - PAGE
        assert turn.cached_tokens < turn.prompt_tokens
    assert sampler.next_turns.kept == 3


def test_a_question_that_is_asked_once_has_no_next_turn():
    sampler = babbler()
    calls = watched(sampler)
    reasoner = Reasoner(sampler)
    reasoner.ask("What is six times seven?", max_tokens=60)
    reasoner.conversation().say("What?", strategy="consensus(samples=2)", max_tokens=60)
    assert calls == []


# Other formats -----------------------------------------------------------------------------------------------------

CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
CALLS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
R1 = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>")
FAMILIES = {"ponder": (CONTROL_TOKENS, 320), "chatml": ((*CHATML, *CALLS), 288), "deepseek_r1": (R1, 288)}


def parrot(family, *pieces, prompt=OPENING):
    """A sampler that says exactly this, thinking first."""
    names, vocab_size = FAMILIES[family]
    tokenizer = ByteTokenizer(names, vocab_size)
    format = load_format(tokenizer, family)
    special = {"close": format.phase_tokens.think_close, "end": format.phase_tokens.end[0]}
    script = [id for piece in pieces for id in ([special[piece]] if piece in special else tokenizer.encode(piece))]
    model = ParrotModel(script, len(format.render(prompt, start=Start.THINK).ids))
    return LocalSampler(model, tokenizer, format)


@pytest.mark.parametrize("next_turn", [NextTurn.VERBATIM, NextTurn.TEXT])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("answer", ["Six times seven is forty-two, as everybody knows.", "Oui\n\n, "])
def test_the_guess_is_right_in_every_format(family, next_turn, answer):
    sampler = parrot(family, "Six sevens.\n", "close", "\n\n" if family != "ponder" else "", answer, "end")
    calls = watched(sampler)
    params = SamplingParams(temperature=0.0, max_tokens=100)
    first = sample(sampler, Request(prompt=OPENING, params=params, next_turn=next_turn))
    assert first.text.strip() == answer.strip()
    rest(sampler)
    exact = next(ids for name, ids in calls if name == "close_next_turn")
    guess = guessed(calls)
    assert tuple(guess) == tuple(exact[: len(guess)])
    assert sampler.engine.stats.counters.next_turn_tokens <= len(exact)
    rendered = sampler.format.render(carried_on(first, next_turn), start=Start.THINK).ids
    assert rendered[: len(exact)] == exact


def test_a_template_that_knows_no_ids_is_fed_with_text():
    template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    template += "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    tokenizer = Tokenizer.train(["and the answer is that, then and there\n" * 9], 384, CHATML)
    format = JinjaFormat(tokenizer, template)
    script = [id for character in "the answer is there, and then and there" * 3 for id in tokenizer.encode(character)]
    model = ParrotModel(script, len(format.render(OPENING, start=Start.DIRECT).ids), vocab_size=384)
    sampler = LocalSampler(model, tokenizer, format)
    calls = watched(sampler)
    params = SamplingParams(temperature=0.0, max_tokens=len(script), thinking=ThinkingLimits(cap=0))
    first = sample(sampler, Request(prompt=OPENING, params=params, next_turn=NextTurn.VERBATIM))
    assert first.message.parts == (Text(first.text, tuple(script)),)
    assert tokenizer.encode(first.text) != script
    rest(sampler)
    exact, guess = next(ids for name, ids in calls if name == "close_next_turn"), guessed(calls)
    assert 30 < len(guess) < len(exact)
    assert tuple(guess) == exact[: len(guess)]


def test_a_format_that_cannot_render_the_next_turn_costs_a_count_and_nothing_else():
    sampler = babbler()

    class Refusing:
        """Renders no conversation that goes on."""

        def __init__(self, format, last):
            self.format, self.last = format, last

        def __getattr__(self, name):
            return getattr(self.format, name)

        def render(self, messages, **options):
            if any(message.role is Role.ASSISTANT and self.last(message) for message in messages):
                raise FormatError("not that")
            return self.format.render(messages, **options)

    for count, refuses in enumerate((lambda message: True, lambda message: len(message.text) > 10), 1):
        sampler.format = Refusing(FORMAT, refuses)
        first = sample(sampler, asked(tokens=100))
        assert first.segment.ids == sample(babbler(), asked(tokens=100)).segment.ids
        rest(sampler)
        assert (sampler.next_turns.skipped, sampler.next_turns.kept, sampler.engine.stats.next_turns) == (count, 0, 0)


# Where nothing is discarded ----------------------------------------------------------------------------------------


def test_under_all_turns_nothing_is_dropped_and_the_next_turn_goes_on_from_the_pages_of_this_one():
    sampler = babbler()
    calls = watched(sampler)
    first = sample(sampler, asked(tokens=100, policy=ReasoningPolicy.ALL_TURNS))
    assert calls == []
    request = asked(carried_on(first, NextTurn.VERBATIM), policy=ReasoningPolicy.ALL_TURNS)
    second = sample(sampler, request)
    assert second.usage.cached_tokens >= (len(first.segment.prompt_ids) + 99) // PAGE * PAGE


def test_between_the_steps_of_a_tool_loop_nothing_is_dropped():
    call = (TOKENS.call_open, *TOKENIZER.encode("add"), TOKENIZER.control_id("<|args|>"), *TOKENIZER.encode("{}"))
    script = [*TOKENIZER.encode("let me add them up, for once"), TOKENS.think_close, *TOKENIZER.encode("Wait.")]
    script += [*call, TOKENS.call_close, TOKENS.end[0]]
    prompt = FORMAT.render(OPENING, start=Start.THINK).ids
    model = ParrotModel(script, len(prompt), vocab_size=TOKENIZER.vocab_size)
    sampler = LocalSampler(model, TOKENIZER, FORMAT)
    calls = watched(sampler)
    params = SamplingParams(temperature=0.0, max_tokens=60)
    step = sample(sampler, Request(prompt=OPENING, params=params, next_turn=NextTurn.VERBATIM))
    rest(sampler)
    assert "end_turn" not in [name for name, _ in calls]
    assert [ids for name, ids in calls if name == "close_next_turn"] in ([], [None])
    assert sampler.next_turns.given_up == 1
    result = Message(Role.TOOL, (ToolResult("add", "42"),))
    second = Request(prompt=(*OPENING, step.message, result), params=params, next_turn=NextTurn.VERBATIM)
    assert sample(sampler, second).usage.cached_tokens >= (len(prompt) + len(script) - 1) // PAGE * PAGE


@pytest.mark.parametrize(
    "request_",
    [
        asked(next_turn=NextTurn.NONE),
        replace(asked(), prompt=FORMAT.render(OPENING, start=Start.THINK).ids),
    ],
)
def test_without_a_known_next_turn_nothing_is_prefilled(request_):
    sampler = babbler()
    calls = watched(sampler)
    sample(sampler, request_)
    asyncio.run(sampler.sample(replace(asked(), n=2)))
    assert calls == []


@pytest.mark.parametrize("tokens", [5, 300])
def test_an_answer_that_is_aborted_leaves_no_prefix(tokens):
    sampler = babbler()
    calls = watched(sampler)

    async def leave():
        seen = 0
        async with aclosing(sampler.stream(asked(tokens=900))) as stream:
            async for item in stream:
                seen += isinstance(item, Delta) and item.phase is Phase.ANSWER
                if seen == tokens:
                    return

    asyncio.run(leave())
    rest(sampler)
    stats = sampler.engine.stats
    assert (stats.next_turns, stats.pages_used, sampler.next_turns.given_up) == (0, 0, 1)
    assert "end_turn" not in [name for name, _ in calls]
