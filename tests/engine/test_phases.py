"""Thinking under control: tags, the cap, the floor, the answer room."""

import pytest
import torch

from ponder.testing.tiny import VOCAB_SIZE
from ponder.types import InvalidRequest, Origin, Phase, PhaseTokens, SamplingParams, StopReason, ThinkingLimits

OPEN, CLOSE, CALL, END_CALL, END = 300, 301, 302, 303, 305
WAIT = (310, 311)
TOKENS = PhaseTokens(
    think_open=OPEN, think_close=CLOSE, call_open=CALL, call_close=END_CALL, continuation=WAIT, end=(END,)
)
PROMPT = list(range(20))
pytestmark = [  # a `ParrotModel` computes something else, which the fused step refuses
    pytest.mark.parametrize("kernel", ["torch", pytest.param("cuda", marks=pytest.mark.cuda)], indirect=True),
]
THINK, ANSWER, TOOL = Phase.THINK, Phase.ANSWER, Phase.TOOL


@pytest.fixture
def parrot(kernel):
    return lambda script: kernel.parrot(script, len(PROMPT))


@pytest.fixture
def run(kernel, parrot):
    """run(script): the finish of a request to a model that says `script`."""

    def run(script, *, start=THINK, tokens=TOKENS, n=None, window=None, **limits):
        room = limits.pop("answer_room", 0)
        params = SamplingParams(
            temperature=0.0, max_tokens=n or len(script), thinking=ThinkingLimits(**limits), answer_room=room
        )
        return kernel.engine(parrot(script), tokens, window=window).generate([PROMPT], params, start=start)[0]

    return run


# Tags --------------------------------------------------------------------------------------------------------------


def test_every_token_is_tagged_as_it_is_produced(run):
    script = [1, 2, CLOSE, 3, CALL, 4, END_CALL, 5, OPEN, 6, CLOSE, 7, END]
    finish = run(script)
    assert finish.segment.ids == tuple(script)
    assert finish.segment.phases == (
        *(THINK,) * 3,
        ANSWER,
        *(TOOL,) * 3,
        ANSWER,
        *(THINK,) * 3,
        *(ANSWER,) * 2,
    )
    assert finish.usage.reasoning_tokens == 6
    assert finish.stop_reason is StopReason.END


def test_call_tokens_within_thinking_are_thinking_and_thinking_tokens_within_a_call_are_the_call(run):
    finish = run([CALL, 1, CLOSE, CALL, OPEN, CLOSE, END_CALL, 1])
    assert finish.segment.phases == (THINK, THINK, THINK, TOOL, TOOL, TOOL, TOOL, ANSWER)


class Anything:
    """A constraint under which everything may be said; `heard` is what it was told of."""

    def __init__(self):
        self.heard = []

    def allowed(self):
        return torch.ones(VOCAB_SIZE, dtype=torch.bool)

    def advance(self, id):
        self.heard.append(id)


def test_a_constraint_hears_the_answer_and_its_calls_and_a_turn_does_not_end_in_its_thinking(kernel, parrot, run):
    script = [1, END, CLOSE, 2, CALL, 3, END_CALL, OPEN, 4, CLOSE, 5, END]
    engine, constraint = kernel.engine(parrot(script), TOKENS), Anything()
    engine.submit(PROMPT, SamplingParams(temperature=0.0), start=THINK, constraint=constraint)
    events = []
    while engine.has_work:
        events += engine.step()
    ids = events[-1].ids
    assert ids[1] != END
    assert (ids[0], *ids[2:]) == (script[0], *script[2:])
    assert constraint.heard == [2, CALL, 3, END_CALL, OPEN, 5, END]
    assert run(script).segment.ids == (1, END), "without one it may"


def test_a_direct_prompt_starts_with_the_answer(run):
    assert run([1, 2], start=ANSWER).segment.phases == (ANSWER, ANSWER)


# Cap ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cap", range(1, 25))
def test_thinking_that_would_not_end_is_closed_exactly_at_the_cap(run, cap):
    segment = run([1] * 30, cap=cap).segment
    assert segment.phases == (THINK,) * cap + (ANSWER,) * (30 - cap)
    assert segment.ids == (1,) * (cap - 1) + (CLOSE,) + (1,) * (30 - cap)
    assert [i for i, origin in enumerate(segment.origins) if origin is Origin.FORCED] == [cap - 1]


@pytest.mark.parametrize("cap", range(12))
def test_the_cap_counts_every_stretch_of_thinking(run, cap):
    """A model that opens thinking whenever it can: never more than `cap`, and no stretch is left open."""
    segment = run([OPEN, 1, 1, CLOSE] * 8, start=ANSWER, cap=cap).segment
    thought = [id for id, phase in zip(segment.ids, segment.phases, strict=True) if phase is THINK]
    assert cap - 1 <= len(thought) <= cap, "a stretch needs two tokens: only one may be left over"
    assert thought.count(OPEN) == thought.count(CLOSE)
    assert segment.phases[-1] is ANSWER


def test_thinking_may_open_only_while_two_tokens_remain(run):
    assert run([OPEN, 1, 1], start=ANSWER, cap=2).segment.ids == (OPEN, CLOSE, 1)
    assert OPEN not in run([OPEN, 1, 1], start=ANSWER, cap=1).segment.ids
    assert OPEN not in run([OPEN, 1, 1], start=ANSWER, cap=0).segment.ids


def test_a_close_that_the_model_chooses_is_sampled_even_at_the_cap(run):
    segment = run([1, 1, CLOSE, 1], cap=10).segment
    assert segment.origins == (Origin.SAMPLED,) * 4


def test_a_cap_of_zero_needs_a_direct_prompt(run):
    with pytest.raises(InvalidRequest, match="render a direct prompt"):
        run([1], cap=0)
    assert run([1], cap=0, start=ANSWER).segment.phases == (ANSWER,)


def test_a_forced_token_carries_its_log_probability(run):
    segment = run([1] * 5, cap=3).segment
    assert segment.logprobs[2] == pytest.approx(-50.0, abs=0.01)


def test_a_stop_id_may_be_the_close_token_even_when_forced(kernel, parrot):
    params = SamplingParams(temperature=0.0, thinking=ThinkingLimits(cap=4), stop_ids=(CLOSE,))
    finish = kernel.engine(parrot([1] * 9), TOKENS).generate([PROMPT], params, start=THINK)[0]
    assert finish.segment.ids == (1, 1, 1, CLOSE)
    assert finish.stop_reason is StopReason.STOP


# Floor -------------------------------------------------------------------------------------------------------------


def test_below_the_floor_a_wish_to_close_becomes_the_continuation(run):
    segment = run([1, CLOSE, 9, CLOSE, CLOSE, CLOSE, CLOSE, 2], floor=6).segment
    #  1, then "Wait" for the close (its second token forced over the 9), "Wait" again, and token 6 may close
    assert segment.ids == (1, *WAIT, *WAIT, CLOSE, CLOSE, 2)
    assert segment.phases == (*(THINK,) * 6, ANSWER, ANSWER)
    assert [o is Origin.FORCED for o in segment.origins] == [False, True, True, True, True, False, False, False]


@pytest.mark.parametrize("floor", range(14))
def test_at_least_floor_tokens_are_thought(run, floor):
    segment = run([CLOSE] * 20, floor=floor).segment
    thought = segment.phases.index(ANSWER)
    assert max(floor, 1) <= thought <= max(floor, 1) + len(WAIT) - 1, "a continuation that has begun is finished"


def test_an_end_below_the_floor_is_a_wish_to_close_too(run):
    assert run([END, 1, 1, CLOSE, END], floor=3).segment.ids == (*WAIT, 1, CLOSE, END)


def test_without_a_continuation_the_close_is_masked_below_the_floor(run):
    silent = PhaseTokens(think_open=OPEN, think_close=CLOSE, end=(END,))
    segment = run([CLOSE, END, CLOSE, CLOSE, 2], floor=4, tokens=silent).segment
    assert not {CLOSE, END} & set(segment.ids[:3])
    assert segment.ids[3:] == (CLOSE, 2)
    assert segment.origins == (Origin.SAMPLED,) * 5


@pytest.mark.parametrize("cap", range(1, 9))
def test_the_cap_wins_over_the_floor(run, cap):
    segment = run([CLOSE] * 12, cap=cap, floor=100).segment
    assert segment.phases.count(THINK) == cap
    assert segment.ids[cap - 1] == CLOSE


# Answer room -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", range(1, 12))
def test_thinking_leaves_room_for_the_answer(run, room):
    segment = run([1] * 12, answer_room=room).segment
    assert segment.phases == (THINK,) * (12 - room) + (ANSWER,) * room


def test_without_room_asked_for_thinking_may_take_everything(run):
    finish = run([1] * 12)
    assert finish.segment.phases == (THINK,) * 12
    assert finish.stop_reason is StopReason.LENGTH


def test_the_room_is_kept_within_what_the_window_leaves(run):
    segment = run([1] * 40, answer_room=3, window=len(PROMPT) + 10).segment
    assert segment.phases == (THINK,) * 7 + (ANSWER,) * 3


def test_thinking_does_not_reopen_into_the_answer_room(run):
    segment = run([CLOSE] + [OPEN] * 9, answer_room=5, n=10).segment
    assert segment.ids[:5] == (CLOSE, OPEN, OPEN, OPEN, CLOSE)
    assert segment.phases[-5:] == (ANSWER,) * 5
    assert OPEN not in segment.ids[5:]


def test_room_that_leaves_no_token_to_close_thinking_is_refused(run):
    with pytest.raises(InvalidRequest, match=r"answer_room must be from 0 to 11 \(got 12\), because 12 tokens"):
        run([1] * 12, answer_room=12)
    assert run([1] * 12, answer_room=12, start=ANSWER).segment.phases == (ANSWER,) * 12


# Formats without thinking, and refusals ----------------------------------------------------------------------------


def test_a_format_without_thinking_refuses_what_it_cannot_keep(run):
    plain = PhaseTokens(end=(END,))
    with pytest.raises(InvalidRequest, match="no token that closes thinking"):
        run([1], tokens=plain)
    with pytest.raises(InvalidRequest, match=r"thinking\.floor must be 0, .*got 2"):
        run([1], tokens=plain, start=ANSWER, floor=2)
    assert run([1, END], tokens=plain, start=ANSWER, cap=5).segment.phases == (ANSWER, ANSWER)


def test_bad_limits_are_refused_by_name(run):
    for limits, text in (
        ({"cap": -1}, r"thinking\.cap must be .*got -1"),
        ({"floor": -2}, r"thinking\.floor must be .*got -2"),
    ):
        with pytest.raises(InvalidRequest, match=text):
            run([1], **limits)
    with pytest.raises(InvalidRequest, match=r"start must be .*got 'tool'"):
        run([1], start=TOOL)
