"""The local engine under the `Sampler` protocol: text, stops, batching across coroutines, cancellation."""

import asyncio
import gc
import itertools
import re
import threading
import time
import weakref
from collections import defaultdict
from contextlib import aclosing
from dataclasses import replace

import pytest
import torch

from ponder.dialogue import CONTROL_TOKENS, Message, PonderFormat, Reasoning, Role, Start, Text, ToolCall
from ponder.model.checkpoint import save_model
from ponder.sampler.local import load_sampler
from ponder.sampler.protocol import Delta, NextTurn, Regex, Request, Truncation
from ponder.sampler.threads import run_sync
from ponder.testing.tiny import ByteTokenizer, ParrotModel, tiny_model, tiny_sampler
from ponder.types import (
    CheckpointError,
    InvalidRequest,
    Overloaded,
    Phase,
    SamplerError,
    SamplingParams,
    StopReason,
    ThinkingLimits,
    WindowExceeded,
)

TOKENIZER = ByteTokenizer()
FORMAT = PonderFormat(TOKENIZER)
QUESTION = (Message.user("6 x 7?"),)
OPEN, CLOSE, END = FORMAT.phase_tokens.think_open, FORMAT.phase_tokens.think_close, FORMAT.phase_tokens.end[0]
DIRECT = ThinkingLimits(cap=0)


def ids_of(*pieces):
    """Ids of texts and control ids, in order."""
    return [id for piece in pieces for id in (TOKENIZER.encode(piece) if isinstance(piece, str) else [piece])]


def speaker(*pieces, start=Start.THINK, **options):
    """A sampler whose model says exactly this after `QUESTION`."""
    prompt = FORMAT.render(QUESTION, start=start)
    return tiny_sampler(model=ParrotModel(ids_of(*pieces), len(prompt.ids)), **options)


def asked(n=1, stop=(), prompt=QUESTION, **params):
    return Request(
        prompt=prompt, params=SamplingParams(**({"temperature": 0.0, "max_tokens": 60} | params)), n=n, stop=stop
    )


def sample(sampler, request):
    return asyncio.run(sampler.sample(request))


def idle(sampler, seconds=1.0):
    """Whether everything is back within that many seconds: no job, no page in use."""

    def left():
        return sampler.num_generations or sampler.engine.has_work or sampler.engine.stats.pages_used

    end = time.monotonic() + seconds
    while sampler._driver.call(left).result():
        if time.monotonic() > end:
            return False
        time.sleep(0.001)
    return True


async def collect(sampler, request):
    texts, done = defaultdict(list), {}
    async with aclosing(sampler.stream(request)) as stream:
        async for item in stream:
            if isinstance(item, Delta):
                texts[item.index, item.phase].append(item.text)
            else:
                done[item.index] = item.completion
    return texts, done


# Messages ----------------------------------------------------------------------------------------------------------


def test_what_is_sampled_becomes_a_message_whose_parts_carry_their_ids():
    completion = sample(speaker("six sevens", CLOSE, "42.", END), asked())[0]
    assert completion.message == Message(
        Role.ASSISTANT,
        (Reasoning("six sevens", tuple(ids_of("six sevens"))), Text("42.", tuple(ids_of("42.")))),
    )
    assert (completion.text, completion.reasoning, completion.stop_reason) == ("42.", "six sevens", StopReason.END)
    assert completion.segment.prompt_ids == FORMAT.render(QUESTION, start=Start.THINK).ids
    assert completion.segment.ids == tuple(ids_of("six sevens", CLOSE, "42.", END))
    assert completion.usage.reasoning_tokens == len("six sevens") + 1
    assert completion.usage.completion_tokens == len(completion.segment.ids)


def test_a_cap_of_zero_renders_a_direct_prompt():
    completion = sample(speaker("42.", END, start=Start.DIRECT), asked(thinking=DIRECT))[0]
    assert (completion.text, completion.reasoning, completion.usage.reasoning_tokens) == ("42.", "", 0)
    assert completion.segment.prompt_ids == FORMAT.render(QUESTION, start=Start.DIRECT).ids


def test_ids_that_are_rendered_already_say_which_phase_they_end_in():
    prompt = FORMAT.render(QUESTION, start=Start.THINK).ids
    request = Request(prompt=prompt, params=SamplingParams(temperature=0.0, max_tokens=20), start=Phase.THINK)
    assert sample(speaker("hm", CLOSE, "42.", END), request)[0].reasoning == "hm"
    direct = Request(prompt=prompt, params=SamplingParams(temperature=0.0, max_tokens=20), start=Phase.ANSWER)
    assert sample(speaker("42.", END), direct)[0].text == "42."


def test_a_tool_call_becomes_a_part():
    args = TOKENIZER.control_id("<|args|>")
    call = (FORMAT.phase_tokens.call_open, "add", args, "{}", FORMAT.phase_tokens.call_close)
    completion = sample(speaker(CLOSE, "Let me see.", *call, END), asked())[0]
    assert completion.text == "Let me see."
    assert completion.message.parts[-1] == ToolCall("add", "{}", ids=tuple(ids_of("add", args, "{}")))


def test_the_prompt_is_counted_once_for_several_samples():
    completions = sample(tiny_sampler(), asked(n=3, temperature=1.0, seed=4))
    assert [c.usage.prompt_tokens for c in completions] == [len(completions[0].segment.prompt_ids), 0, 0]
    assert [c.usage.cached_tokens for c in completions] == [0, 0, 0]
    assert len({c.segment.ids for c in completions}) == 3


def test_sample_i_is_sampled_with_seed_plus_i():
    three = sample(tiny_sampler(), asked(n=3, temperature=1.0, seed=4))
    for index in range(3):
        alone = sample(tiny_sampler(), asked(temperature=1.0, seed=4 + index))[0]
        assert alone.segment.ids == three[index].segment.ids


def test_a_second_turn_is_served_from_the_cache():
    sampler, opening = tiny_sampler(), (Message.user("What is six times seven?"),)
    first = sample(sampler, asked(prompt=opening, max_tokens=10, thinking=DIRECT, seed=2, temperature=1.0))[0]
    conversation = (*opening, first.message, Message.user("Sure?"))
    second = sample(sampler, asked(prompt=conversation, thinking=DIRECT))[0]
    page = sampler.engine.stats.page_size
    assert second.usage.cached_tokens >= len(first.segment.prompt_ids) // page * page > 0


def test_a_tenant_is_not_served_what_another_cached():
    sampler, prompt = tiny_sampler(), (Message.user("What is six times seven?"),)
    requests = [replace(asked(prompt=prompt), tenant=tenant) for tenant in ("", "a", "b", "a")]
    cached = [sample(sampler, request)[0].usage.cached_tokens for request in requests]
    assert cached[:3] == [0, 0, 0]
    assert cached[3] > 0


def test_the_likeliest_ids_come_with_the_segment():
    segment = sample(tiny_sampler(), asked(top_logprobs=3))[0].segment
    assert [len(top) for top in segment.top_logprobs] == [3] * len(segment.ids)
    assert all(top[0][0] == id for top, id in zip(segment.top_logprobs, segment.ids, strict=True)), "greedy"


# Streams and stops -------------------------------------------------------------------------------------------------


def test_a_stream_gives_the_text_as_it_comes_and_whole_characters_only():
    sampler = speaker("ho", CLOSE, "é ", "好", END)
    texts, done = asyncio.run(collect(sampler, asked()))
    assert texts[0, Phase.THINK] == ["h", "o"]
    assert texts[0, Phase.ANSWER] == ["é", " 好"]
    assert done[0].text == "é 好"


def test_thinking_is_streamed_whole_before_the_answer_begins():
    async def order():
        return [
            item.phase async for item in speaker("ho \n", CLOSE, "42", END).stream(asked()) if isinstance(item, Delta)
        ]

    assert asyncio.run(order()) == [Phase.THINK] * 3 + [Phase.ANSWER] * 2


@pytest.mark.parametrize("stop", [("STOP",), ("O", "STOP"), ("x", "ST"), ("TOPPLE", "S")])
def test_a_stop_string_ends_the_answer_and_no_part_of_it_is_seen(stop):
    sampler = speaker(CLOSE, "go SO STOP more", END)
    texts, done = asyncio.run(collect(sampler, asked(stop=stop)))
    whole = "go SO STOP more"
    expected = whole[: min(whole.find(s) for s in stop if s in whole)]
    assert "".join(texts[0, Phase.ANSWER]) == done[0].text == expected
    assert done[0].stop_reason is StopReason.STOP
    assert TOKENIZER.decode(done[0].segment.ids[1:]).startswith(expected), "what was sampled stays in the segment"
    ended = min(whole.find(s) + len(s) for s in stop if s in whole)
    assert done[0].segment.ids == (CLOSE, *ids_of(whole[:ended])), "not a token more is sampled"
    assert idle(sampler)


def test_a_text_that_is_cut_loses_its_ids_and_one_that_is_not_keeps_them():
    assert sample(speaker(CLOSE, "a.b", END), asked(stop=(".",)))[0].message.parts[-1] == Text("a")
    whole = sample(speaker(CLOSE, "a.b", END), asked(stop=("..",)))[0].message.parts[-1]
    assert whole == Text("a.b", tuple(ids_of("a.b")))


def test_a_stop_string_is_not_matched_in_the_reasoning():
    completion = sample(speaker("no STOP here", CLOSE, "yes", END), asked(stop=("STOP",)))[0]
    assert (completion.reasoning, completion.text, completion.stop_reason) == ("no STOP here", "yes", StopReason.END)


def test_what_only_looked_like_a_stop_string_is_given_in_the_end():
    texts, done = asyncio.run(collect(speaker(CLOSE, "a STO", END), asked(stop=("STOP",))))
    assert "".join(texts[0, Phase.ANSWER]) == done[0].text == "a STO"


def test_a_stop_string_of_white_space_only_at_the_very_start():
    texts, done = asyncio.run(collect(speaker(CLOSE, "\n\nfoo", END), asked(stop=("\n\n",))))
    assert (texts[0, Phase.ANSWER], done[0].text, done[0].stop_reason) == ([], "", StopReason.STOP)
    texts, done = asyncio.run(collect(speaker(CLOSE, "\n\n", END), asked(stop=("\n\n",))))
    assert (texts[0, Phase.ANSWER], done[0].text, done[0].stop_reason) == ([], "", StopReason.STOP)


# Many at once ------------------------------------------------------------------------------------------------------


def test_coroutines_share_one_batch_and_get_what_each_would_get_alone():
    requests = [
        asked(temperature=1.0, seed=i, max_tokens=5 + 3 * i, prompt=(Message.user("?" * i + "x"),)) for i in range(12)
    ]
    sampler = tiny_sampler(max_batch=4)
    steps = 0
    step = sampler.engine.step

    def counted():
        nonlocal steps
        steps += 1
        return step()

    sampler.engine.step = counted

    async def together():
        return await asyncio.gather(*(sampler.sample(request) for request in requests))

    results = asyncio.run(together())
    for request, result in zip(requests, results, strict=True):
        assert result[0].segment.ids == sample(tiny_sampler(), request)[0].segment.ids
    assert steps < sum(len(result[0].segment.ids) for result in results) / 2


def test_a_stream_and_samples_run_side_by_side():
    async def both():
        sampler = tiny_sampler()
        streamed, whole = await asyncio.gather(
            collect(sampler, asked(n=2, temperature=1.0, seed=1)), sampler.sample(asked())
        )
        return streamed, whole

    (texts, done), whole = asyncio.run(both())
    for index, completion in done.items():
        assert "".join(texts[index, Phase.THINK]) == completion.reasoning
        assert "".join(texts[index, Phase.ANSWER]) == completion.text
    assert whole[0].segment.ids == sample(tiny_sampler(), asked())[0].segment.ids


@pytest.mark.parametrize("after", [0, 1, 5])
def test_cancelling_the_waiting_task_aborts_its_requests_only(after):
    async def scenario():
        sampler = tiny_sampler(max_batch=2)
        given_up = asyncio.create_task(sampler.sample(asked(n=3, max_tokens=200)))
        kept = asyncio.create_task(sampler.sample(asked()))
        for _ in range(after):
            await asyncio.sleep(0)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        result = await kept
        return idle(sampler), result[0].segment.ids

    is_idle, ids = asyncio.run(scenario())
    assert is_idle
    assert ids == sample(tiny_sampler(), asked())[0].segment.ids


def test_closing_a_stream_early_aborts_its_request():
    async def scenario():
        sampler = tiny_sampler()
        async with aclosing(sampler.stream(asked(max_tokens=200, n=2))) as stream:
            async for _ in stream:
                break
        return idle(sampler)

    assert asyncio.run(scenario())


def test_one_sampler_serves_one_event_loop_after_the_other():
    sampler = tiny_sampler()
    assert sample(sampler, asked())[0].segment.ids == sample(sampler, asked())[0].segment.ids


def test_the_synchronous_door_works_inside_a_running_loop_while_that_loop_samples_too():
    sampler = tiny_sampler()

    async def scenario():
        outer = asyncio.create_task(sampler.sample(asked(n=2, temperature=1.0, seed=1)))
        await asyncio.sleep(0)
        inner = run_sync(sampler.sample(asked()))
        return inner, await outer

    inner, outer = asyncio.run(scenario())
    assert inner[0].segment.ids == sample(tiny_sampler(), asked())[0].segment.ids
    alone = sample(tiny_sampler(), asked(n=2, temperature=1.0, seed=1))
    assert [c.segment.ids for c in outer] == [c.segment.ids for c in alone]


def test_threads_with_event_loops_of_their_own_share_one_batch():
    sampler = tiny_sampler()
    requests = [asked(n=2, temperature=1.0, seed=seed) for seed in range(4)]
    results = [None] * len(requests)

    def work(index):
        results[index] = sample(sampler, requests[index])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for request, result in zip(requests, results, strict=True):
        assert [c.segment.ids for c in result] == [c.segment.ids for c in sample(tiny_sampler(), request)]
    assert idle(sampler)


def test_an_event_loop_does_not_wait_for_a_step():
    sampler = tiny_sampler()
    step = sampler.engine.step

    def slow():
        time.sleep(0.2)
        return step()

    sampler.engine.step = slow

    async def scenario():
        task = asyncio.create_task(sampler.sample(asked(max_tokens=3)))
        longest, last = 0.0, time.monotonic()
        while not task.done():
            await asyncio.sleep(0.005)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        return longest

    assert asyncio.run(scenario()) < 0.15


def test_two_samplers_progress_together():
    log = []

    def watched(name):
        sampler = tiny_sampler(name=name)
        step = sampler.engine.step
        sampler.engine.step = lambda: (log.append(name), step())[1]
        return sampler

    async def scenario():
        request = asked(max_tokens=120, temperature=1.0, seed=5)
        await asyncio.gather(*(watched(name).sample(request) for name in "ab"))

    asyncio.run(scenario())
    both = log[log.index("b") :]
    both = both[: len(both) - 1 - both[::-1].index("a")]
    assert len(both) > 50
    assert max(len(list(run)) for _, run in itertools.groupby(both)) <= 3, "".join(both)


def test_a_sampler_that_is_dropped_is_gone():
    sampler = tiny_sampler()
    sample(sampler, asked())
    dropped = weakref.ref(sampler)
    del sampler
    end = time.monotonic() + 5
    while dropped() is not None:
        assert time.monotonic() < end
        time.sleep(0.05)
        gc.collect()


def test_a_loop_that_is_closed_while_it_waits_leaves_nothing_behind():
    sampler = tiny_sampler()
    loop = asyncio.new_event_loop()
    stream = sampler.stream(asked(max_tokens=200, n=2, temperature=1.0, seed=3))
    loop.run_until_complete(anext(stream))
    loop.close()
    assert idle(sampler)


def test_run_sync_hands_over_results_and_errors():
    async def fail():
        raise KeyError("gone")

    async def inside():
        with pytest.raises(KeyError, match="gone"):
            run_sync(fail())
        return run_sync(asyncio.sleep(0, "done"))

    assert run_sync(inside()) == "done"


def test_an_engine_that_breaks_tells_everyone_who_waits():
    sampler = tiny_sampler()

    def broken():
        raise MemoryError("no room")

    async def scenario():
        sampler.engine.step = broken
        return await asyncio.gather(*(sampler.sample(asked()) for _ in range(3)), return_exceptions=True)

    assert [str(error) for error in asyncio.run(scenario())] == ["no room"] * 3
    del sampler.engine.step
    assert sample(sampler, asked())[0].segment.ids == sample(tiny_sampler(), asked())[0].segment.ids


def test_closing_ends_what_runs_and_refuses_what_comes():
    async def scenario():
        sampler = tiny_sampler()
        waiting = asyncio.create_task(sampler.sample(asked()))
        await asyncio.sleep(0)
        await sampler.close()
        with pytest.raises(SamplerError, match="was closed"):
            await waiting
        with pytest.raises(SamplerError, match="is closed"):
            await sampler.sample(asked())
        await sampler.close()
        return idle(sampler)

    assert asyncio.run(scenario())


# Limits --------------------------------------------------------------------------------------------------------------


def test_when_time_is_up_what_is_there_is_given_back():
    sampler = tiny_sampler(max_positions=4096)
    request = replace(asked(max_tokens=4000, thinking=ThinkingLimits(floor=4000)), seconds=0.2)
    began = time.monotonic()
    completion = sample(sampler, request)[0]
    assert completion.stop_reason is StopReason.DEADLINE
    assert 0 < len(completion.segment.ids) < 4000
    assert time.monotonic() - began < 2
    assert idle(sampler)


def test_a_full_queue_is_an_error_and_nothing_of_the_request_is_kept():
    async def scenario():
        sampler = tiny_sampler(max_batch=1, max_waiting=2)
        first = asyncio.create_task(sampler.sample(asked(max_tokens=200)))
        while not sampler.engine.num_running:
            await asyncio.sleep(0.001)
        with pytest.raises(Overloaded, match="max_waiting"):
            await sampler.sample(asked(n=3))
        assert sampler.num_generations == 1
        accepted = await sampler.sample(asked(n=2))
        return sampler, await first, accepted

    sampler, first, accepted = asyncio.run(scenario())
    assert len(first) == 1
    assert len(accepted) == 2
    assert idle(sampler)


def test_a_grammar_governs_each_sample_by_a_state_of_its_own():
    thinking = ThinkingLimits(floor=5, cap=5)
    request = replace(asked(n=3, temperature=1.0, thinking=thinking, seed=3), grammar=Regex("(yes|no), [0-9]{4}"))
    texts = [completion.text for completion in sample(tiny_sampler(), request)]
    assert all(re.fullmatch("(yes|no), [0-9]{4}", text) for text in texts)
    assert len(set(texts)) == 3


def test_a_grammar_that_gives_up_on_the_way_ends_its_own_request_only(monkeypatch):
    class GivesUp:
        """Allows everything, twice."""

        left = 2

        def allowed(self):
            return torch.ones(TOKENIZER.vocab_size, dtype=torch.bool)

        def advance(self, id):
            self.left -= 1
            if not self.left:
                raise InvalidRequest("too complex to go on")

    monkeypatch.setattr("ponder.sampler.grammar.compile_grammar", lambda *_, **__: GivesUp())

    async def scenario():
        sampler = tiny_sampler()
        governed = replace(asked(thinking=DIRECT), grammar=Regex(".*"), next_turn=NextTurn.VERBATIM)
        results = await asyncio.gather(sampler.sample(governed), sampler.sample(asked()), return_exceptions=True)
        return sampler, *results

    sampler, failed, other = asyncio.run(scenario())
    assert isinstance(failed, InvalidRequest)
    assert str(failed) == "too complex to go on"
    assert other[0].segment.ids == sample(tiny_sampler(), asked())[0].segment.ids
    assert idle(sampler)


def test_a_grammar_that_cannot_be_followed_is_refused():
    with pytest.raises(InvalidRequest, match="regular expression"):
        sample(tiny_sampler(), replace(asked(), grammar=Regex("(")))


# The window, and refusals ------------------------------------------------------------------------------------------


LONG = (
    Message.system("Be brief."),
    *(message for i in range(6) for message in (Message.user(f"question {i} " * 2), Message.assistant("answer " * 3))),
    Message.user("last"),
)


def test_a_conversation_that_does_not_fit_is_refused_with_the_counts():
    with pytest.raises(WindowExceeded, match="window of 256") as refused:
        sample(tiny_sampler(), asked(prompt=LONG))
    assert refused.value.prompt_tokens == len(FORMAT.render(LONG, start=Start.THINK).ids)


def test_truncation_drops_the_oldest_turns_and_says_how_many_messages():
    request = Request(prompt=LONG, params=SamplingParams(temperature=0.0, max_tokens=40), truncation=Truncation.AUTO)
    completion = sample(tiny_sampler(), request)[0]
    assert completion.dropped_turns % 2 == 0
    assert completion.dropped_turns > 0
    kept = (LONG[0], *LONG[1 + completion.dropped_turns :])
    assert completion.segment.prompt_ids == FORMAT.render(kept, start=Start.THINK).ids
    assert len(completion.segment.prompt_ids) <= 256 - 40


def test_a_long_last_turn_takes_the_room_it_needs_when_turns_may_be_dropped():
    prompt = (*LONG, Message.assistant("ok"), Message.user("x" * 200))
    request = Request(prompt=prompt, params=SamplingParams(temperature=0.0), truncation=Truncation.AUTO)
    assert sample(tiny_sampler(), request)[0].dropped_turns == len(LONG), "all but the system message"


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (asked(n=0), r"n must be an integer of at least 1 \(got 0\)"),
        (asked(stop=("",)), "each stop must be .*got ''"),
        (asked(prompt=()), "prompt is empty"),
        (replace(asked(), seconds=0.0), r"seconds must be a finite number above 0 \(got 0.0\)"),
        (asked(top_p=2.0), "top_p must be .*got 2.0"),
        (asked(n=2, seed=2**64 - 1), "seed must be .*got 18446744073709551616"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name_and_leaves_nothing_behind(request_, text):
    sampler = tiny_sampler()
    with pytest.raises(InvalidRequest, match=text):
        sample(sampler, request_)
    assert idle(sampler)


# From a folder -----------------------------------------------------------------------------------------------------


def test_a_sampler_is_loaded_from_a_folder(tmp_path):
    save_model(tiny_model(seed=5), tmp_path / "sage")
    TOKENIZER.save(tmp_path / "sage")
    sampler = load_sampler(tmp_path / "sage", window=128, deterministic=True)
    assert (sampler.name, sampler.capabilities.window) == ("sage", 128)
    assert sample(sampler, asked())[0].segment.ids == sample(tiny_sampler(seed=5), asked())[0].segment.ids


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path):
    save_model(tiny_model(vocab_size=288), tmp_path / "m")
    ByteTokenizer(CONTROL_TOKENS, 352).save(tmp_path / "m")
    with pytest.raises(CheckpointError, match="352 ids and the model only 288"):
        load_sampler(tmp_path / "m")


def test_the_weights_are_updated_through_the_engine():
    sampler = tiny_sampler()
    before = sample(sampler, asked())[0].segment
    with sampler.engine.update_weights(), torch.no_grad():
        sampler.engine.model.model.norm.weight.mul_(0.5)
    after = sample(sampler, asked())[0].segment
    assert (before.weights_version, after.weights_version) == (0, 1)
    assert after.logprobs != pytest.approx(before.logprobs)


def test_sampling_inside_an_update_is_refused_not_waited_for():
    sampler = tiny_sampler()
    with sampler.engine.update_weights(), pytest.raises(InvalidRequest, match="inside update_weights"):
        sample(sampler, asked())


# Begun together ----------------------------------------------------------------------------------------------------


def test_gathered_requests_begin_together_in_their_order():
    async def go():
        sampler = tiny_sampler()
        sampler.gather(3)
        tasks = []
        for seed in range(3):
            await asyncio.sleep(0.02)  # time enough for a step
            assert not sampler.engine.stats.counters.steps
            tasks.append(asyncio.ensure_future(sampler.sample(asked(temperature=1.0, seed=seed))))
        await asyncio.gather(*tasks)
        await sampler.sample(asked())  # nothing is held back any more
        return [task.result()[0].segment for task in tasks]

    assert asyncio.run(go()) == asyncio.run(go())


def test_a_gathered_request_that_is_given_up_is_not_waited_for():
    async def go():
        sampler = tiny_sampler()
        sampler.gather(2)
        first = asyncio.ensure_future(sampler.sample(asked()))
        await asyncio.sleep(0.02)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await asyncio.wait_for(sampler.sample(asked()), 30)
        assert idle(sampler)

    asyncio.run(go())


def test_closing_ends_what_is_gathered():
    async def go():
        sampler = tiny_sampler()
        sampler.gather(2)
        first = asyncio.ensure_future(sampler.sample(asked()))
        await asyncio.sleep(0.02)
        await sampler.close()
        with pytest.raises(SamplerError, match="was closed"):
            await first

    asyncio.run(go())
