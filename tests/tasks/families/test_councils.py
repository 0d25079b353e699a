"""Families that several voices share: the lanes give the graded answer, each step is right by independent arithmetic,
and no voice uses what it has not heard yet."""

from __future__ import annotations

import re
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.dialogue.messages import LaneEnd
from ponder.tasks.families import FAMILIES
from ponder.tasks.families.countdown import parse_question
from ponder.tasks.families.working.countdown_search import Search
from ponder.tasks.families.working.lanes import WAIT, has_heard, spoken
from ponder.tasks.protocol import CouncilTask, Problem
from ponder.tasks.registry import load_task
from ponder.types import CouncilTokens, TaskError
from ponder.voices import spawned, voices_of

pytestmark = pytest.mark.property

SHARED = [name for name in FAMILIES if isinstance(load_task(name), CouncilTask)]
TOKENS = CouncilTokens(spawn=256, numbers=tuple(range(300, 308)), address=257, leave=258, join=259, closing=(260,))
ENDS = {LaneEnd.LEFT: [TOKENS.leave], LaneEnd.JOINED: [TOKENS.join], LaneEnd.CUT: []}
seeds = st.integers(min_value=0, max_value=2**32)
numbers = st.integers(min_value=1, max_value=8)


def drawn(name, seed, level, voices):
    rng, task = Random(seed), load_task(name)
    problem = task.sample(rng, level)
    return task, problem, task.demonstrate_council(problem, rng, voices)


def test_products_sums_and_searches_can_be_shared():
    assert sorted(SHARED) == ["chain_sum", "countdown", "products"]


@settings(deadline=None)
@given(name=st.sampled_from(SHARED), seed=seeds, level=st.floats(0, 0.5), voices=numbers)
def test_the_lanes_are_in_step_and_end_in_the_graded_answer(name, seed, level, voices):
    task, problem, shown = drawn(name, seed, level, voices)
    assert task.grade(problem, shown.answer).solved
    assert len(shown.voices) == (0 if voices == 1 else voices)
    if voices > 1:
        lanes = [[TOKENS.address, *voice.text.encode("ascii"), *ENDS[voice.end]] for voice in shown.voices]
        council = spawned(lanes, TOKENS)  # raises where they are out of step
        assert voices_of([*council, 5], TOKENS)[-1] is None  # and it is over


@given(lanes=st.lists(st.text("ab", max_size=9), min_size=1, max_size=8), data=st.data())
def test_the_first_lane_that_joins_ends_the_others(lanes, data):
    joining = data.draw(st.sets(st.integers(0, len(lanes) - 1), min_size=1))
    voices = spoken(lanes, joining)
    last = min(len(lanes[voice]) for voice in joining)
    for number, (voice, lane) in enumerate(zip(voices, lanes, strict=True)):
        assert lane.startswith(voice.text)
        assert len(voice.text) == min(len(lane), last + 1)
        joins = number in joining and len(lane) == last
        assert (voice.end is LaneEnd.JOINED) == joins
        assert (voice.end is LaneEnd.CUT) == (len(lane) > last)


def test_a_voice_has_heard_what_stands_in_slots_before_the_one_that_draws_its_next_token():
    lanes = [[TOKENS.address, *range(10, 20), TOKENS.join], [TOKENS.address, *range(30, 40), TOKENS.leave]]
    slots = spawned(lanes, TOKENS)
    for at in range(10):
        drawn_from = slots.index(lanes[0][at])  # the slot of the token before character number `at`
        heard = {said for said in range(10) if slots.index(30 + said) <= drawn_from}
        assert heard == {said for said in range(10) if has_heard(at, said)}


# Products -------------------------------------------------------------------------------------------------------------


def lanes_of(shown):
    return [voice.text for voice in shown.voices] or [shown.reasoning.split("\n")[2]]


@settings(deadline=None)
@given(a=st.integers(0, 99_999), b=st.integers(0, 99_999), voices=numbers)
def test_each_step_of_a_shared_product_is_right_and_uses_what_was_heard(a, b, voices):
    problem = Problem(task="products", question="", answer=str(a * b), metadata={"factors": [a, b]})
    shown = load_task("products").demonstrate_council(problem, Random(0), voices)
    opening = shown.opening if voices > 1 else "\n".join(shown.reasoning.split("\n")[:2])
    assert opening.split("\n")[0] == f"{a}*{b}"
    named = re.findall(r"([A-Za-z])(\d)", opening.split("\n")[1])
    digits = [int(digit) for _, digit in named]
    width = len(str(a))
    assert digits == [int(digit) for digit in f"{a}"[::-1] + f"{b}"[::-1]]
    value, said = {name: int(digit) for name, digit in named}, {}
    lanes = lanes_of(shown)
    rows = 0
    for voice, lane in enumerate(lanes):
        for row in re.finditer(r"([A-Za-z])(\d):((?:[A-Za-z]\d\*\d\+\d=\d[A-Za-z]\d)+)([A-Za-z])(\d)", lane):
            name, by, steps, last, top = row.groups()
            assert value[name] == int(by)
            carry = place = 0
            for step in re.finditer(r"([A-Za-z])(\d)\*(\d)\+(\d)=(\d)([A-Za-z])(\d)", steps):
                assert (step[1], value[step[1]], step[3]) == (named[place][0], int(step[2]), by)
                assert int(step[4]) == carry
                carry, units = divmod(int(step[2]) * int(by) + carry, 10)
                assert (int(step[5]), int(step[7])) == (carry, units)
                assert step[6] not in value | said
                said[step[6]] = (voice, row.start(3) + step.end() - 1, units)
                place += 1
            assert (place, int(top)) == (width, carry)
            said[last] = (voice, row.end() - 1, carry)
            rows += 1
    assert rows == len(str(b))
    check_columns(lanes[0], said, shown, a * b)


def check_columns(lane, said, shown, product):
    """The adder's part of its lane: every digit was heard, every total is right, the result is named once."""
    begin = max([at for voice, at, _ in said.values() if voice == 0], default=-1) + 1
    read, total, result = set(), 0, []
    place = begin
    while place < len(lane):
        if lane[place] == WAIT:
            place += 1
            continue
        name = lane[place]
        if name in said:
            voice, at, digit = said[name]
            assert voice == 0 or has_heard(place + 1, at)
            total += digit
            assert lane[place + 1 : place + 4] == f"{digit}{total:02d}"
            read.add(name)
            place += 4
        else:
            assert lane[place + 1] == str(total % 10)
            result.append(lane[place : place + 2])
            total //= 10
            place += 2
    assert (read, total) == (set(said), 0)
    assert int("".join(pair[1] for pair in reversed(result))) == product
    assert shown.reasoning.split("\n")[-1] == "".join(reversed(result))


def test_more_voices_take_fewer_steps():
    problem = Problem(task="products", question="", answer="24981957", metadata={"factors": [8437, 2961]})
    task = load_task("products")
    steps = [max(map(len, lanes_of(task.demonstrate_council(problem, Random(0), voices)))) for voices in (1, 2, 3, 5)]
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] < steps[0] / 2


def test_what_cannot_be_shared_is_refused():
    problem = Problem(task="products", question="", answer="6", metadata={"factors": [1, 2, 3]})
    with pytest.raises(TaskError, match=r"two numbers of at most 5 digits \(got 1 \* 2 \* 3\): set max_level to 0.5"):
        load_task("products").demonstrate_council(problem, Random(0), 2)


# Sums and searches ----------------------------------------------------------------------------------------------------


def signed(text):
    return int(text[1:][::-1]) * (-1 if text[0] == "-" else 1)


@given(seed=seeds, level=st.floats(0, 1), voices=st.integers(2, 8))
def test_each_voice_sums_its_terms_and_the_first_sums_the_sums_it_heard(seed, level, voices):
    _, problem, shown = drawn("chain_sum", seed, level, voices)
    terms = problem.metadata["terms"]
    last = 0
    sums = []
    for number, voice in enumerate(shown.voices):
        own = terms[number::voices]
        assert bool(voice.text.strip(WAIT)) == bool(own) or number == 0
        if not own:
            continue
        first, *_ = voice.text.split("\n")
        assert [signed(term) for term in re.findall(r"[+-]\d+", first)] == own
        sums.append(signed(re.search(r"^=([+-]\d+)", voice.text, re.M)[1]))
        assert sums[-1] == sum(own)
        last = max(last, len(voice.text) - 1) if number else last
    again = re.search(rf"=[+-]\d+(\{WAIT}*)\n( .*)", shown.voices[0].text)
    assert [signed(term) for term in re.findall(r"[+-]\d+", again[2])] == sums
    assert has_heard(again.start(2), last)
    assert shown.answer == str(sum(terms))


@settings(deadline=None, max_examples=50)
@given(seed=seeds, level=st.floats(0, 0.5), voices=st.integers(2, 5))
def test_each_voice_tries_its_own_heads_and_the_one_that_hits_joins(seed, level, voices):
    task, problem, shown = drawn("countdown", seed, level, voices)
    search = Search(*parse_question(problem.question))
    order = {re.sub(r"=\d+", "", head.text): number for number, head in enumerate(search.heads())}
    for number, voice in enumerate(shown.voices):
        heads = [re.sub(r"=\d+", "", head) for head in re.findall(r"^([\d()+*/=-]+):", voice.text, re.M)]
        assert all(order.get(head, len(order)) % voices == number for head in heads)
        placed = [order[head] for head in heads if head in order]
        assert placed == sorted(placed)
        tries = task.tries(problem, voice.text if voice.end is not LaneEnd.CUT else voice.text.rpartition("\n")[0])
        assert all(each.right == each.accepted for each in tries)
        assert (voice.end is LaneEnd.JOINED) == any(each.accepted for each in tries)
        if voice.end is LaneEnd.JOINED:
            assert voice.text.endswith(" yes")
