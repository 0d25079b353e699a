"""Penalties: what was said is said less often; a turn can still end; a fork goes on as its parent would."""

import pytest

from ponder.engine import FinishEvent
from ponder.types import InvalidRequest, Phase, PhaseTokens, SamplingParams

END = 5
TOKENS = PhaseTokens(end=(END,))
PROMPT = [7, 8, 9, 7, END]


def said(kernel, steps=24, fork_after=None, **fields):
    """The ids of one answer; with `fork_after`, of a fork made after that many steps."""
    engine = kernel.engine(kernel.tiny_model(seed=3), TOKENS)
    params = SamplingParams(max_tokens=steps, temperature=0.0, **fields)
    wanted = engine.submit(PROMPT, params, start=Phase.ANSWER)
    taken = 0
    while engine.has_work:
        for event in engine.step():
            if isinstance(event, FinishEvent) and event.request == wanted:
                return event.segment.ids
        taken += 1
        if taken == fork_after:
            wanted = engine.fork(wanted, seed=1)
    raise AssertionError("it never ended")


def repeats(ids):
    return len(ids) - len(set(ids))


def test_without_penalties_a_small_model_repeats_itself(kernel):
    assert repeats(said(kernel)) > 5


@pytest.mark.parametrize("fields", [{"presence_penalty": 50.0}, {"frequency_penalty": 50.0}])
def test_a_large_penalty_lets_no_id_come_twice_before_the_turn_ends(kernel, fields):
    ids = [id for id in said(kernel, **fields) if id != END]
    assert repeats(ids) == 0
    assert ids


def test_a_repetition_penalty_holds_for_the_prompt_too(kernel):
    ids = said(kernel, repetition_penalty=1e6)
    assert not set(ids) & (set(PROMPT) - {END})


def test_a_negative_penalty_asks_for_more_of_the_same(kernel):
    assert len(set(said(kernel, presence_penalty=-100.0))) == 1


def test_control_ids_are_left_alone(kernel):
    ids = said(kernel, repetition_penalty=1e6, logit_bias=((END, 100.0),))
    assert ids == (END,), "the prompt holds it, and yet the turn may end with it"


def test_a_fork_goes_on_under_the_same_penalties(kernel):
    fields = {"frequency_penalty": 3.0, "presence_penalty": 2.0, "repetition_penalty": 1.2}
    assert said(kernel, fork_after=9, **fields) == said(kernel, **fields)


@pytest.mark.parametrize(
    ("field", "value"),
    [("frequency_penalty", float("nan")), ("presence_penalty", "1"), ("repetition_penalty", 0.0)],
)
def test_a_bad_penalty_is_named(kernel, field, value):
    engine = kernel.engine(kernel.tiny_model(), TOKENS)
    with pytest.raises(InvalidRequest, match=field):
        engine.submit(PROMPT, SamplingParams(**{field: value}), start=Phase.ANSWER)
