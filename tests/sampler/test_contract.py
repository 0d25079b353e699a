"""One suite over every sampler: the local engine, a remote endpoint in each dialect, and the scripted fake."""

import asyncio
import contextlib
from collections import defaultdict
from contextlib import aclosing, contextmanager

import pytest

from ponder.dialogue.messages import Message, Role, ToolCall
from ponder.dialogue.tools import Tool
from ponder.sampler.endpoint import EndpointSampler
from ponder.sampler.protocol import CallDelta, Delivery, Delta, Done, NamedTool, Request, Sampler, ToolChoice
from ponder.testing.endpoint import StubEndpoint
from ponder.testing.scripted import Say, ScriptedSampler
from ponder.types import InvalidRequest, Phase, SamplerError, SamplingParams, StopReason, ThinkingLimits, Usage

QUESTION = (Message.user("What is 6 times 7?"),)


def answer(conversation, index):
    return Say(text=f"The answer is 42, sample {index}.", reasoning="Six sevens are forty-two, I think.")


@contextmanager
def scripted():
    yield ScriptedSampler(answer)


@contextmanager
def local():
    from ponder.testing.tiny import tiny_sampler

    yield tiny_sampler()


def endpoint(dialect):
    @contextmanager
    def make():
        with StubEndpoint(answer, dialect=dialect) as stub:
            yield EndpointSampler(stub.url, "stub", dialect=dialect)

    return make


SAMPLERS = {
    "local": local,
    "scripted": scripted,
    "openai": endpoint("openai"),
    "vllm": endpoint("vllm"),
    "deepseek": endpoint("deepseek"),
}


@pytest.fixture(params=SAMPLERS)
def sampler(request):
    with SAMPLERS[request.param]() as made:
        made.kind = request.param
        yield made


def ask(sampler, **fields):
    params = {"max_tokens": 24, "temperature": 0.0, "seed": 7} | fields.pop("params", {})
    return Request(prompt=QUESTION, params=SamplingParams(**params), **fields)


async def streamed(sampler, request):
    texts, done = defaultdict(str), {}
    async with aclosing(sampler.stream(request)) as stream:
        async for event in stream:
            if isinstance(event, Delta):
                assert event.index not in done, "nothing follows a completion's Done"
                texts[event.index, event.phase] += event.text
            else:
                assert isinstance(event, Done)
                done[event.index] = event.completion
    return texts, [done[index] for index in sorted(done)]


def test_is_a_sampler(sampler):
    assert isinstance(sampler, Sampler)
    assert sampler.name
    window = sampler.capabilities.window
    assert sampler.capabilities.exact == (window is not None)
    assert window is None or window > 0


def test_only_the_ends_of_completions_come_where_no_text_is_wanted(sampler):
    ended = []

    async def gathered():
        delivery = Delivery(deltas=False, ended=lambda: ended.append(asyncio.get_running_loop()))
        async with aclosing(sampler.stream(ask(sampler, n=2), delivery)) as stream:
            return [event async for event in stream]

    events = asyncio.run(gathered())
    assert sorted(event.index for event in events if isinstance(event, Done)) == [0, 1]
    assert len(events) == len(ended) == 2
    assert events[0].completion.text or events[0].completion.reasoning


def test_pieces_that_are_held_back_join_to_the_same_texts(sampler):
    async def texts(delivery):
        found = defaultdict(str)
        async with aclosing(sampler.stream(ask(sampler), delivery)) as stream:
            async for event in stream:
                if isinstance(event, Delta):
                    found[event.phase] += event.text
        return found

    assert asyncio.run(texts(Delivery(gather=0.02))) == asyncio.run(texts(Delivery()))


def test_what_a_sampler_cannot_do_it_declares(sampler):
    if sampler.capabilities.scores:
        logprobs, _ = asyncio.run(sampler.score([1, 2, 3]))
        assert len(logprobs) == 2
    else:
        with pytest.raises(InvalidRequest, match="log-probabilities"):
            asyncio.run(sampler.score([1, 2, 3]))
    assert asyncio.run(sampler.count(QUESTION)) > 0
    assert (asyncio.run(sampler.stats()) is None) == (sampler.kind != "local")


def test_a_completion_is_an_assistant_message_with_its_bill(sampler):
    (completion,) = asyncio.run(sampler.sample(ask(sampler)))
    assert completion.message.role is Role.ASSISTANT
    assert isinstance(completion.stop_reason, StopReason)
    usage = completion.usage
    assert usage.prompt_tokens > 0
    assert 0 <= usage.reasoning_tokens <= usage.completion_tokens
    assert 0 < usage.completion_tokens <= 24
    assert 0 <= usage.cached_tokens <= usage.prompt_tokens


def test_the_prompt_is_counted_once(sampler):
    completions = asyncio.run(sampler.sample(ask(sampler, n=3, params={"temperature": 1.0})))
    assert len(completions) == 3
    prompts = [each.usage.prompt_tokens for each in completions]
    if sampler.kind == "deepseek":  # three requests, each billed
        assert prompts[0] == prompts[1] == prompts[2] > 0
    else:
        assert prompts[0] > 0
        assert prompts[1:] == [0, 0]
    assert sum((each.usage for each in completions), Usage()).completion_tokens > 0


def test_streamed_equals_whole(sampler):
    request = ask(sampler, n=2)
    texts, done = asyncio.run(streamed(sampler, request))
    assert [texts[index, Phase.ANSWER] for index in range(2)] == [each.text for each in done]
    assert [texts[index, Phase.THINK] for index in range(2)] == [each.reasoning for each in done]
    whole = asyncio.run(sampler.sample(request))
    assert [each.text for each in whole] == [each.text for each in done]
    assert [each.stop_reason for each in whole] == [each.stop_reason for each in done]
    assert [each.usage.completion_tokens for each in whole] == [each.usage.completion_tokens for each in done]


CALLS = (ToolCall("add", '{"a": 1, "b": [2, 3]}', "c1"), ToolCall("now", "", "c2"))
TOOLS = (Tool("add", "Adds."), Tool("now"))


@pytest.mark.parametrize("kind", [kind for kind in SAMPLERS if kind != "local"])  # it has `test_sampler_calls`
@pytest.mark.parametrize("n", [1, 2])
def test_calls_stream_as_they_are_in_the_end(kind, n):
    def line(conversation, index):
        return Say(text="", calls=CALLS[: 2 - index])

    async def gathered(sampler):
        async with aclosing(sampler.stream(ask(sampler, n=n, tools=TOOLS))) as stream:
            return [event async for event in stream]

    with StubEndpoint(line, dialect=kind) if kind != "scripted" else contextlib.nullcontext() as stub:
        sampler = EndpointSampler(stub.url, "stub", dialect=kind) if stub else ScriptedSampler(line)
        events = asyncio.run(gathered(sampler))
    for index in range(n):
        (done,) = [each for each in events if isinstance(each, Done) and each.index == index]
        made = [part for part in done.completion.message.parts if isinstance(part, ToolCall)]
        assert made == list(CALLS[: 2 - (index if kind != "deepseek" else 0)])  # there each is a request
        for number, call in enumerate(made):
            pieces = [
                each for each in events if isinstance(each, CallDelta) and (each.index, each.call) == (index, number)
            ]
            assert [(each.name, each.id) for each in pieces[:1]] == [(call.name, call.id)]
            assert all(each.name is each.id is None for each in pieces[1:])
            assert "".join(each.arguments for each in pieces) == call.arguments
            assert number or len(pieces) > 3


def test_choices_among_tools_that_are_not_declared_are_refused(sampler):
    with pytest.raises(InvalidRequest, match=r"not declared \('f'\); declared: add, now"):
        asyncio.run(sampler.sample(ask(sampler, tools=TOOLS, tool_choice=NamedTool("f"))))
    with pytest.raises(InvalidRequest, match="tool_choice is 'required', but no tools"):
        asyncio.run(sampler.sample(ask(sampler, tool_choice=ToolChoice.REQUIRED)))


def test_thinking_off_means_no_reasoning(sampler):
    (completion,) = asyncio.run(
        sampler.sample(ask(sampler, params={"thinking": ThinkingLimits(cap=0), "max_tokens": 4}))
    )
    assert completion.reasoning == ""
    if sampler.kind != "local":  # untrained weights may open their thinking again
        assert completion.usage.reasoning_tokens == 0


def test_a_cap_on_thinking_holds_or_is_refused(sampler):
    request = ask(sampler, params={"thinking": ThinkingLimits(cap=3)})
    if sampler.kind in ("openai", "deepseek"):
        with pytest.raises(InvalidRequest, match="cap on thinking"):
            asyncio.run(sampler.sample(request))
    else:
        (completion,) = asyncio.run(sampler.sample(request))
        assert completion.usage.reasoning_tokens <= 3


def test_max_tokens_end_a_completion_with_length(sampler):
    request = ask(sampler, params={"max_tokens": 2, "thinking": ThinkingLimits(cap=0)})
    (completion,) = asyncio.run(sampler.sample(request))
    assert completion.usage.completion_tokens <= 2
    if sampler.kind != "local":
        assert completion.text == "The answer"
        assert completion.stop_reason is StopReason.LENGTH


def test_a_stop_string_is_left_out(sampler):
    thinking = ThinkingLimits(cap=0)
    (whole,) = asyncio.run(sampler.sample(ask(sampler, params={"thinking": thinking})))
    stop = whole.text[5:8]
    request = ask(sampler, stop=(stop,), params={"thinking": thinking})
    (completion,) = asyncio.run(sampler.sample(request))
    assert completion.text == whole.text[: whole.text.index(stop)]
    if sampler.kind not in ("openai", "deepseek"):  # these wires do not tell a stop string from the end
        assert completion.stop_reason is StopReason.STOP
    texts, _ = asyncio.run(streamed(sampler, request))
    assert texts[0, Phase.ANSWER] == completion.text


def test_many_at_once_give_what_each_gives_alone(sampler):
    async def together():
        return await asyncio.gather(*(sampler.sample(ask(sampler)) for _ in range(8)))

    (alone,) = asyncio.run(sampler.sample(ask(sampler)))
    assert [each.text for (each,) in asyncio.run(together())] == [alone.text] * 8


def test_a_stream_can_be_left_and_the_sampler_goes_on(sampler):
    async def first_piece():
        async with aclosing(sampler.stream(ask(sampler))) as stream:
            async for event in stream:
                return event
        return None

    assert asyncio.run(first_piece()) is not None
    assert len(asyncio.run(sampler.sample(ask(sampler)))) == 1


def test_a_cancelled_request_leaves_the_sampler_usable(sampler):
    async def cancelled():
        task = asyncio.ensure_future(sampler.sample(ask(sampler)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await sampler.sample(ask(sampler))

    assert len(asyncio.run(cancelled())) == 1


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), "3"])
def test_impossible_seconds_are_refused(sampler, seconds):
    with pytest.raises(InvalidRequest, match="seconds"):
        asyncio.run(sampler.sample(ask(sampler, seconds=seconds)))


@pytest.mark.parametrize("fields", [{"n": 0}, {"n": 1.5}, {"prompt": ()}])
def test_an_impossible_request_is_refused(sampler, fields):
    with pytest.raises(InvalidRequest):
        asyncio.run(sampler.sample(Request(**{"prompt": QUESTION} | fields)))


def test_closed_means_closed(sampler):
    asyncio.run(sampler.close())
    with pytest.raises(SamplerError, match="closed"):
        asyncio.run(sampler.sample(ask(sampler)))


def test_a_stream_that_is_cancelled_says_what_each_completion_has_cost(sampler):
    async def cancelled():
        unread, seen = [], 0

        async def read():
            nonlocal seen
            delivery = Delivery(unread=unread.append)
            async with aclosing(sampler.stream(ask(sampler, n=2, params={"max_tokens": 200}), delivery)) as stream:
                async for event in stream:
                    seen += isinstance(event, Delta)
                    if seen == 3:
                        asyncio.current_task().cancel()

        with contextlib.suppress(asyncio.CancelledError):
            await read()
        return unread

    unread = asyncio.run(cancelled())
    ends = {done.index: done.completion for done in unread}
    assert sorted(ends) == ([0] if sampler.kind == "deepseek" else [0, 1]), "there, one follows the other"
    assert {each.stop_reason for each in ends.values()} <= {StopReason.ABORTED, StopReason.END}
    assert [ends[index].usage.prompt_tokens > 0 for index in sorted(ends)] == [True, False][: len(ends)]
    assert sum(each.usage.completion_tokens for each in ends.values()) >= 3


def test_nothing_is_unread_of_a_stream_that_was_read(sampler):
    async def read():
        unread = []
        async with aclosing(sampler.stream(ask(sampler), Delivery(unread=unread.append))) as stream:
            return [event async for event in stream], unread

    events, unread = asyncio.run(read())
    assert isinstance(events[-1], Done)
    assert unread == []
