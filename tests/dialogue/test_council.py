"""Several voices in one context: which slot is whose follows from the ids, and a council is read as it was written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.dialogue import (
    LaneEnd,
    Message,
    Parsed,
    ParseStatus,
    PonderFormat,
    Reasoning,
    Role,
    SpanKind,
    Start,
    Text,
    Voice,
    from_dicts,
    load_format,
    to_dicts,
    train_tokenizer,
)
from ponder.tokenizer import Tokenizer
from ponder.types import CouncilTokens, FormatError
from ponder.voices import interleave, separate, spawned, targets_of, voices_of

pytestmark = pytest.mark.property

TOKENIZER = train_tokenizer(["12 apples and 34 pears.\n" * 9], 384)
PONDER = PonderFormat(TOKENIZER)
COUNCIL = cast(CouncilTokens, PONDER.phase_tokens.council)
CONTROL = TOKENIZER.control
THINK, CLOSE, END = CONTROL["<|think|>"], CONTROL["<|/think|>"], CONTROL["<|end|>"]
PLAIN = st.integers(0, 266)
SAID = st.lists(PLAIN, max_size=6)


@st.composite
def lanes(draw: st.DrawFn, *, cut: bool = False) -> list[list[int]]:
    """What each voice says, opening and end included: it leaves at some step, or stays until one joins."""
    said = draw(st.lists(SAID, min_size=1, max_size=8))
    joins = draw(st.sets(st.integers(0, len(said) - 1), min_size=0))
    if not joins:
        return [[COUNCIL.address, *each, *([] if cut else [COUNCIL.leave])] for each in said]
    last = max(map(len, said)) + 1
    spoken = [[COUNCIL.address, *each, COUNCIL.leave] for each in said]
    for voice in joins:
        spoken[voice] = [COUNCIL.address, *(7 for _ in range(last)), COUNCIL.join]
    return spoken


@given(lanes=lanes(), before=SAID, after=SAID)
def test_slots_are_given_to_voices_by_the_ids_alone(
    lanes: list[list[int]], before: list[int], after: list[int]
) -> None:
    ids, voices = interleave(lanes)
    whole = [*before, *spawned(lanes, COUNCIL), *after]
    begin = len(before) + 2
    assert whole[begin : begin + len(ids)] == ids
    assert voices_of(whole, COUNCIL) == [None] * begin + voices + [None] * len(after)
    assert separate(whole, voices_of(whole, COUNCIL)) == lanes


@given(lanes=lanes(), before=SAID, after=SAID)
def test_targets_are_the_next_token_of_the_same_voice(
    lanes: list[list[int]], before: list[int], after: list[int]
) -> None:
    whole = [*before, *spawned(lanes, COUNCIL), *after]
    voices = voices_of(whole, COUNCIL)
    targets = targets_of(voices)
    begin, end = len(before) + 2, len(whole) - len(after)
    for voice in range(len(lanes)):
        own = [slot for slot in range(len(whole)) if voices[slot] == voice]
        assert [targets[slot] for slot in own[:-1]] == own[1:]
        if own[-1] != end - 1:
            assert targets[own[-1]] == -1
    outside = [*range(begin), *range(end - 1, len(whole))]
    assert [targets[slot] for slot in outside] == [slot + 1 for slot in outside[:-1]] + [-1]
    hit = [target for target in targets if target >= 0]
    assert len(hit) == len(set(hit))
    assert set(range(1, len(whole))) - set(hit) == set(range(begin + 1, begin + len(lanes)))  # the openings


def test_all_voices_together_stand_in_the_slots_of_the_formula() -> None:
    lanes = [[COUNCIL.address, 10 * v, 10 * v + 1, COUNCIL.join if v == 2 else 99] for v in range(3)]
    ids, _ = interleave(lanes)
    assert all(ids[3 * step + voice] == lanes[voice][step] for step in range(4) for voice in range(3))
    assert targets_of(voices_of([5, *spawned(lanes, COUNCIL), 6], COUNCIL))[3:12] == [*range(6, 15)][:9]


TO, LEAVE, JOIN = COUNCIL.address, COUNCIL.leave, COUNCIL.join


@pytest.mark.parametrize(
    "lanes",
    [
        [[TO, 1, 2, 3], [TO, 4]],  # the second stops without leaving
        [[TO, 1, JOIN], [TO, 2, 3, 4, LEAVE]],  # it goes on after one joined
        [[TO, LEAVE, 1], [TO, 2, JOIN]],  # a voice speaks after it left
        [[1, JOIN], [TO, 2, LEAVE]],  # a lane without its opening
        [],
        [[TO, LEAVE]] * 9,
    ],
)
def test_lanes_that_no_council_can_have_are_refused(lanes: list[list[int]]) -> None:
    with pytest.raises(FormatError, match=r"out of step|from 1 to 8"):
        spawned(lanes, COUNCIL)


def generated(lanes: list[list[int]], before: list[int], after: list[int]) -> list[int]:
    return [*before, *spawned(lanes, COUNCIL), *after, CLOSE, 5, END]


def reparsed(ids: list[int]) -> tuple[Parsed, list[int]]:
    """Parsed, and what a rendering of it shows after the prompt."""
    parsed = PONDER.parse_generated(ids, start=Start.THINK)
    prompt = PONDER.render([Message.user("q")], start=Start.THINK).ids
    return parsed, list(PONDER.render([Message.user("q"), parsed.message]).ids[len(prompt) :])


@given(lanes=lanes(), before=SAID, after=SAID)
def test_parse_reads_the_voices_and_render_writes_them_again(
    lanes: list[list[int]], before: list[int], after: list[int]
) -> None:
    ids = generated(lanes, before, after)
    parsed, again = reparsed(ids)
    assert (parsed.status, parsed.stray) == (ParseStatus.COMPLETE, ())
    thought, council, later, answer = parsed.message.parts
    assert isinstance(council, Reasoning)
    assert (thought, answer) == (Reasoning(TOKENIZER.decode(before), tuple(before)), Text(TOKENIZER.decode([5]), (5,)))
    assert later == Reasoning(TOKENIZER.decode(after), tuple(after))
    assert council.text == "\n".join(voice.text for voice in council.voices)
    for voice, lane in zip(council.voices, lanes, strict=True):
        end = {COUNCIL.leave: LaneEnd.LEFT, COUNCIL.join: LaneEnd.JOINED}[lane[-1]]
        assert voice == Voice(TOKENIZER.decode(lane[1:-1]), end, tuple(lane[1:-1]))
    assert again == ids


@given(lanes=lanes(), before=SAID, data=st.data())
def test_a_council_that_is_cut_off_is_read_as_far_as_it_goes(
    lanes: list[list[int]], before: list[int], data: st.DataObject
) -> None:
    ids = generated(lanes, before, [])
    begin = len(before) + 2 + len(lanes)
    cut = data.draw(st.integers(begin, len(ids) - 4))
    parsed, again = reparsed(ids[:cut])
    assert (parsed.status, parsed.stray) == (ParseStatus.OPEN_THINK, ())
    council = parsed.message.parts[1]
    assert isinstance(council, Reasoning)
    assert len(council.voices) == len(lanes)
    for voice, lane in zip(council.voices, lanes, strict=True):
        said = list(voice.ids or ())
        assert said == lane[1 : 1 + len(said)]
    assert again == [*ids[:cut], CLOSE, END]  # as a turn that is over
    assert PONDER.parse_generated(again, start=Start.THINK).message == parsed.message
    assert voices_of(again, COUNCIL)[:cut] == voices_of(ids, COUNCIL)[:cut]


@pytest.mark.parametrize("given", ["<|spawn|>", "<|spawn|>2", "<|spawn|>2<|to|>", "<|spawn|>3<|to|><|to|>"])
def test_an_opening_that_is_not_whole_is_text_of_the_thought(given: str) -> None:
    ids = [id for control, text in TOKENIZER.split_control(given) for id in _ids(control, text)]
    for tail, status in (([], ParseStatus.OPEN_THINK), ([CLOSE, END], ParseStatus.STRAY_CONTROL)):
        parsed = PONDER.parse_generated([6, *ids, *tail], start=Start.THINK)
        assert parsed.status is status
        assert parsed.message.parts == (Reasoning(TOKENIZER.decode([6, *ids])),)
        assert set(voices_of([6, *ids, *tail], COUNCIL)) == {None}


def _ids(control: int | None, text: str) -> list[int]:
    return TOKENIZER.encode(text) if control is None else [control]


@settings(deadline=None)
@given(
    ids=st.lists(st.sampled_from([7, 17, 18, *(CONTROL[n] for n in CONTROL if "reserved" not in n), END]), max_size=24)
)
def test_whatever_comes_after_an_opening_is_read_and_can_be_rendered(ids: list[int]) -> None:
    whole = [COUNCIL.spawn, COUNCIL.numbers[1], COUNCIL.address, COUNCIL.address, *ids]
    parsed, again = reparsed(whole)
    if not parsed.stray and parsed.status is ParseStatus.COMPLETE:
        assert again[: len(whole)] == whole
    reparsed(again)


def test_the_loss_falls_on_what_the_voices_say_and_not_on_the_openings() -> None:
    lanes = [[COUNCIL.address, 1, COUNCIL.leave], [COUNCIL.address, 2, 3, COUNCIL.join]]
    message = reparsed(generated(lanes, [4], []))[0].message
    rendered = PONDER.render([Message.user("q"), message], train=True)
    spans = [span for span in rendered.spans if span.kind is SpanKind.COUNCIL]
    assert [(span.end - span.begin, span.sampled) for span in spans] == [(2, True), (2, False), (5, True)]


def test_councils_survive_dictionaries_and_other_families_refuse_them() -> None:
    council = Reasoning.council((Voice("ab", LaneEnd.LEFT), Voice("cd", LaneEnd.JOINED)))
    message = Message(Role.ASSISTANT, (Reasoning("x"), council, Reasoning(""), Text("y")))
    assert from_dicts(to_dicts([message])) == (message,)
    qwen = load_format(Tokenizer.load(Path(__file__).parents[1] / "golden" / "families" / "qwen3"), "chatml")
    with pytest.raises(FormatError, match="cannot express a council"):
        qwen.render([Message.user("q"), message])
    with pytest.raises(FormatError, match=r"Reasoning\.council"):
        PONDER.render([replace(message, parts=(replace(council, text="other"),))])
    cut = Reasoning.council((Voice("ab", LaneEnd.CUT),))
    with pytest.raises(FormatError, match="goes on after a council that has not ended"):
        PONDER.render([replace(message, parts=(cut, Reasoning("z")))])
    with pytest.raises(FormatError, match='"end"'):
        from_dicts([{"role": "assistant", "content": "", "reasoning_content": [{"voices": [{"text": "a"}]}]}])
