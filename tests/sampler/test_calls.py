"""Tools through the local engine: declared in the prompt, called as the request chooses, streamed as they come."""

import asyncio
import json
import time
from contextlib import aclosing

import pytest

from ponder.dialogue import Arguments, Message, Start, Text, Tool, ToolCall, load_format
from ponder.sampler.local import LocalSampler
from ponder.sampler.protocol import (
    CallDelta,
    Delta,
    Done,
    JsonSchema,
    NamedTool,
    NextTurn,
    ParallelCalls,
    Request,
    ToolChoice,
    Truncation,
)
from ponder.testing.tiny import ByteTokenizer, ParrotModel, tiny_model
from ponder.types import FormatError, InvalidRequest, Phase, SamplingParams, StopReason, ThinkingLimits

CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
CALLS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
R1 = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>")
TOKENIZERS = {
    "ponder": ByteTokenizer(),
    "chatml": ByteTokenizer((*CHATML, *CALLS), 288),
    "deepseek_r1": ByteTokenizer(R1, 288),
}
FORMATS = {name: load_format(tokenizer) for name, tokenizer in TOKENIZERS.items()}
QUESTION = (Message.system("Be brief."), Message.user("6 x 7?"))
XY = {"x": {"type": "integer", "minimum": 0, "maximum": 99}, "y": {"enum": ["a", "b"]}}
SCHEMA = {"type": "object", "properties": XY, "required": ["x", "y"], "additionalProperties": False}
MULTIPLY = Tool("multiply", "Multiplies.", json.dumps(SCHEMA))
NOW = Tool("now", "", '{"type": "object", "additionalProperties": false}')
TOOLS = (MULTIPLY, NOW)


def made(name, model=None, **options):
    tokenizer = TOKENIZERS[name]
    model = model or tiny_model(vocab_size=tokenizer.vocab_size, max_positions=1024)
    return LocalSampler(model, tokenizer, FORMATS[name], max_batch=8, **options)


def speaker(name, *pieces, request):
    """A sampler whose model says exactly this after the request's prompt, texts and control ids."""
    tokenizer, format = TOKENIZERS[name], FORMATS[name]
    start = Start.DIRECT if request.params.thinking.cap == 0 else Start.THINK
    prompt = format.render(request.prompt, start=start, tools=request.tools).ids
    ids = [id for piece in pieces for id in (tokenizer.encode(piece) if isinstance(piece, str) else [piece])]
    return made(name, ParrotModel(ids, len(prompt), vocab_size=tokenizer.vocab_size, max_positions=1024))


def asked(tools=TOOLS, n=1, prompt=QUESTION, cap=0, **fields):
    given = {"max_tokens": 120, "temperature": 1.0, "thinking": ThinkingLimits(cap=cap)} | fields.pop("params", {})
    return Request(prompt=prompt, tools=tools, n=n, params=SamplingParams(**given), **fields)


def run(sampler, request):
    """(completions, streamed texts of the answers, streamed calls), the calls as (name, arguments)."""

    async def streamed():
        texts, calls, done = [""] * request.n, [[] for _ in range(request.n)], {}
        async with aclosing(sampler.stream(request)) as stream:
            async for event in stream:
                match event:
                    case Done():
                        done[event.index] = event.completion
                    case Delta():
                        texts[event.index] += event.text if event.phase is Phase.ANSWER else ""
                    case CallDelta(index, number, name, arguments):
                        if name is not None:
                            assert number == len(calls[index])
                            calls[index].append([name, ""])
                        calls[index][number][1] += arguments
        return [done[index] for index in range(request.n)], texts, calls

    completions, texts, calls = asyncio.run(streamed())
    assert texts == [each.text for each in completions]
    assert [[tuple(call) for call in each] for each in calls] == [calls_of(each) for each in completions]
    return completions


def calls_of(completion):
    return [(part.name, part.arguments) for part in completion.message.parts if isinstance(part, ToolCall)]


def fits(call):
    name, arguments = call
    value = json.loads(arguments)
    if name == "now":
        return value == {}
    return value.keys() == {"x", "y"} and 0 <= value["x"] <= 99 and value["y"] in ("a", "b")


BOTH = pytest.mark.parametrize("name", ["ponder", "chatml"])


@BOTH
def test_tools_are_declared_in_the_prompt(name):
    (completion,) = run(made(name), asked())
    assert completion.segment.prompt_ids == FORMATS[name].render(QUESTION, start=Start.DIRECT, tools=TOOLS).ids
    assert b"multiply" in bytes(TOKENIZERS[name].decode(completion.segment.prompt_ids), "utf-8")


@BOTH
@pytest.mark.parametrize("cap", [0, 12])
@pytest.mark.parametrize("choice", [ToolChoice.REQUIRED, NamedTool("multiply"), NamedTool("now")])
def test_forced_calls_are_made_and_fit_whatever_the_model_is(name, cap, choice):
    sampler = made(name)
    for seed in range(2):
        request = asked(n=4, cap=cap, tool_choice=choice, params={"seed": seed * 100, "temperature": 1.5})
        for completion in run(sampler, request):
            calls = calls_of(completion)
            assert calls, completion.message
            if isinstance(choice, NamedTool):
                assert [called for called, _ in calls] == [choice.name]
                assert completion.stop_reason is StopReason.END
            if completion.stop_reason is StopReason.END:
                assert all(map(fits, calls)), calls
                assert completion.text == ""
            else:  # it went on calling, and the limit cut the last call: in its arguments, or still in its name
                assert all(map(fits, calls[:-1])), calls
                assert completion.text == "" or fits(calls[-1])
            assert (Phase.THINK in completion.segment.phases) == (cap > 0)


@BOTH
def test_streamed_and_whole_are_the_same(name):
    sampler, request = made(name), asked(n=4, tool_choice=ToolChoice.REQUIRED, params={"seed": 5})
    whole = asyncio.run(sampler.sample(request))
    assert [each.message for each in run(sampler, request)] == [each.message for each in whole]


def frame(name, tool, arguments):
    """A call's pieces, for a speaker."""
    format = FORMATS[name]
    written = format.calls.frame(tool)
    return [format.phase_tokens.call_open, *written.before, arguments, *written.after, format.phase_tokens.call_close]


@BOTH
def test_a_model_that_wants_to_call_calls_under_auto_and_never_under_none(name):
    end = FORMATS[name].phase_tokens.end[0]
    pieces = (*frame(name, "multiply", '{"free": [1]}'), end)
    (completion,) = run(speaker(name, *pieces, request=asked()), asked())
    assert calls_of(completion) == [("multiply", '{"free": [1]}')]
    assert completion.stop_reason is StopReason.END
    opening = FORMATS[name].phase_tokens.call_open
    for tools in (TOOLS, ()):
        request = asked(tools, n=8, tool_choice=ToolChoice.NONE, params={"logit_bias": ((opening, 90.0), (5, 1.0))})
        for completion in run(speaker(name, *pieces, request=request), request):
            assert opening not in completion.segment.ids
            assert calls_of(completion) == []


@BOTH
def test_strict_arguments_are_kept_to_their_schema(name):
    end = FORMATS[name].phase_tokens.end[0]
    strict = (Tool("multiply", "", MULTIPLY.parameters, Arguments.STRICT),)
    request = asked(strict, n=6, params={"seed": 3})
    pieces = (*frame(name, "multiply", '{"free": [1]}'), end)
    for completion in run(speaker(name, *pieces, request=request), request):
        ((called, arguments),) = calls_of(completion)[:1]
        assert called == "multiply"
        assert completion.stop_reason is not StopReason.END or fits((called, arguments))
        assert arguments.startswith('{"x"')


@BOTH
def test_one_call_ends_the_turn(name):
    end = FORMATS[name].phase_tokens.end[0]
    pieces = ("hi", *frame(name, "now", "{}"), *frame(name, "now", "{}"), end)
    request = asked(params={"temperature": 0.0})
    (many,) = run(speaker(name, *pieces, request=request), request)
    assert len(calls_of(many)) == 2
    broken = (FORMATS[name].phase_tokens.call_open, "oops", FORMATS[name].phase_tokens.call_close)
    pieces = ("hi", *broken, *pieces[1:])  # what is not a call does not count as one
    request = asked(parallel_calls=ParallelCalls.ONE, params={"temperature": 0.0})
    (one,) = run(speaker(name, *pieces, request=request), request)
    assert calls_of(one) == [("now", "{}")]
    assert one.text.startswith("hi")
    assert "oops" in one.text
    assert one.stop_reason is StopReason.END
    assert one.segment.ids[-1] in FORMATS[name].phase_tokens.end


@BOTH
def test_a_call_that_the_limit_cuts_keeps_what_was_streamed(name):
    pieces = frame(name, "multiply", '{"x": 123456789}')
    request = asked(params={"temperature": 0.0})
    whole = speaker(name, *pieces, FORMATS[name].phase_tokens.end[0], request=request)
    (completion,) = run(whole, request)
    length = len(completion.segment.ids)
    seen = set()
    for limit in range(1, length, 3):
        (cut,) = run(whole, asked(params={"temperature": 0.0, "max_tokens": limit}))
        if limit < length - 1:  # then the call is closed, and only the turn is not
            assert cut.stop_reason is StopReason.LENGTH
        for called, arguments in calls_of(cut):
            assert called == "multiply"
            assert '{"x": 123456789}'.startswith(arguments)
            seen.add(arguments)
    assert len(seen) > 3


def test_tools_without_a_declaration_are_called_as_ever():
    """A call of a tool that was not declared is a call when it is whole, and else text."""
    end = FORMATS["ponder"].phase_tokens.end[0]
    request = asked((), params={"temperature": 0.0})
    sampler = speaker("ponder", *frame("ponder", "f", "[1]"), end, request=request)
    (completion,) = run(sampler, request)
    assert calls_of(completion) == [("f", "[1]")]
    (cut,) = run(sampler, asked((), params={"temperature": 0.0, "max_tokens": 4}))
    assert cut.message.parts == (Text("<|call|>f<|args|>["),)


@BOTH
def test_beside_a_grammar_the_model_may_answer_or_call(name):
    end, grammar = FORMATS[name].phase_tokens.end[0], JsonSchema('{"enum": [42]}')
    request = asked(grammar=grammar, params={"temperature": 0.0})
    (called,) = run(speaker(name, *frame(name, "now", "{}"), end, request=request), request)
    assert calls_of(called) == [("now", "{}")]
    (answered,) = run(speaker(name, "42", end, request=request), request)
    assert (answered.text, calls_of(answered)) == ("42", [])
    forced = asked(grammar=grammar, tool_choice=ToolChoice.NONE, params={"temperature": 0.0})
    (answered,) = run(speaker(name, *frame(name, "now", "{}"), end, request=forced), forced)
    assert (answered.text, calls_of(answered)) == ("42", [])


@BOTH
def test_the_next_turn_is_warm_with_its_tools(name):
    end = FORMATS[name].phase_tokens.end[0]
    answer = "It is forty-two, and that is all there is to say of it."
    request = asked(params={"temperature": 0.0}, next_turn=NextTurn.TEXT)
    sampler = speaker(name, answer, end, request=request)
    (completion,) = run(sampler, request)
    assert completion.text == answer
    while sampler._driver.call(lambda: sampler.engine.has_work).result():
        time.sleep(0.001)  # the next turn's prefix is computed after the answer is delivered
    following = asked(prompt=(*QUESTION, Message.assistant(answer), Message.user("And 7 x 8?")))
    (second,) = asyncio.run(sampler.sample(following))
    known = FORMATS[name].render((*QUESTION, Message.assistant(answer)), tools=TOOLS).ids
    assert second.usage.cached_tokens > len(known) - 32


def test_dropped_turns_leave_the_tools():
    sampler = made("ponder", window=256)
    old = tuple(message for _ in range(9) for message in (Message.user("old " * 5), Message.assistant("gone " * 5)))
    request = asked(prompt=(*QUESTION[:1], *old, Message.user("new")), truncation=Truncation.AUTO, tools=(NOW,))
    (completion,) = run(sampler, request)
    assert completion.dropped_turns > 0
    assert "now" in TOKENIZERS["ponder"].decode(completion.segment.prompt_ids)


@pytest.mark.parametrize(
    ("fields", "error", "why"),
    [
        ({"tools": (), "tool_choice": ToolChoice.REQUIRED}, InvalidRequest, "tool_choice is 'required', but no tools"),
        ({"tool_choice": NamedTool("f")}, InvalidRequest, r"not declared \('f'\); declared: multiply, now"),
        ({"tools": (), "parallel_calls": ParallelCalls.ONE}, InvalidRequest, "parallel_calls is 'one', but no tools"),
        ({"tools": (NOW, NOW)}, FormatError, "tool 1: an earlier tool is called 'now' too"),
        ({"tools": (Tool(""),)}, FormatError, "tool 0: the name is empty"),
        ({"tools": (Tool("f", "", "{"),)}, FormatError, "tool 'f': its parameters are not valid JSON"),
        ({"tools": (Tool("f", "", "[]"),)}, FormatError, "tool 'f': its parameters must be a JSON schema"),
        ({"tools": (Tool("f", "", '{"maximum": NaN}'),)}, FormatError, "NaN is not JSON"),
        ({"tools": (Tool("f", "\ud800"),)}, FormatError, "tool 'f': its declaration holds a lone surrogate"),
        (
            {"tools": (NOW, Tool("f", "", '{"type": "colour"}')), "tool_choice": ToolChoice.REQUIRED},
            InvalidRequest,
            "the parameters of the tool 'f' cannot be used",
        ),
        (
            {"tools": (NOW, Tool("f", "", '{"x-guidance": {}}')), "tool_choice": ToolChoice.REQUIRED},
            InvalidRequest,
            "the parameters of the tool 'f': .*x-guidance",
        ),
    ],
)
def test_what_cannot_be_declared_or_chosen_is_refused_by_name(fields, error, why):
    with pytest.raises(error, match=why):
        asyncio.run(made("ponder").sample(asked(**fields)))


def test_a_format_without_tools_refuses_them():
    sampler = made("deepseek_r1")
    with pytest.raises(FormatError, match="deepseek_r1 cannot declare tools"):
        asyncio.run(sampler.sample(asked(prompt=QUESTION[1:])))
    with pytest.raises(InvalidRequest, match="the deepseek_r1 format has no tool calls"):
        asyncio.run(sampler.sample(asked(prompt=(1, 2, 3), start=Phase.ANSWER)))
    (completion,) = run(sampler, asked((), prompt=QUESTION[1:], tool_choice=ToolChoice.NONE))
    assert calls_of(completion) == []
