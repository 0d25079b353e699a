"""Dialects whose pieces cannot name a voice get a council as one piece, as the message has it."""

from ponder.dialogue import LaneEnd, Reasoning, Voice
from ponder.sampler.protocol import CallDelta, Delta
from ponder.serve.common.order import WholeCalls
from ponder.types import Phase


def think(text, voice=None):
    return Delta(0, Phase.THINK, text, voice=voice)


def test_a_council_is_held_back_until_it_is_over():
    order = WholeCalls()
    pieces = [think("split"), think("1", 0), think("2", 1), think("3", 0), think("4", 2), think("so"), think("5", 1)]
    let = [[each.text for each in order.feed(piece)] for piece in pieces]
    council = Reasoning.council([Voice(text, LaneEnd.LEFT) for text in ("13", "2", "4")])
    assert let == [["split"], [], [], [], [], [council.text, "so"], []]
    assert list(order.rest()) == [think("5")]


def test_a_call_comes_after_the_council_before_it():
    order = WholeCalls()
    assert list(order.feed(think("a", 1))) == []
    call = CallDelta(0, 0, "f", "{}")
    assert list(order.feed(call)) == [think("a"), call]
