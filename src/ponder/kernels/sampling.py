"""A pick: how the next token of one sequence is drawn, and the result.

One for each sequence, made once. The compiled step reads and fills it where it lies; the torch rules of
`engine.sampling` do the same from here.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ponder.types import SamplingParams, TopLogprobs

MOST_LIKELY = 20  # ids that a pick can name
_LOWEST_TEMPERATURE = 1e-30  # below it quotients overflow, and the likeliest id has all the weight long since
_LARGEST_BIAS = 1e37
_MOST = 2**31 - 1


class NotFinite(ArithmeticError):
    """A row of logits holds a NaN or infinity, or nothing above -infinity: no id can be picked from it."""


class Rule(NamedTuple):
    """What is demanded of one token.

    forced: this id, whatever the model would say.
    banned: ids that may not be sampled.
    closing, instead: when one of `closing` is sampled, `instead` takes its place.
    """

    forced: int | None = None
    banned: tuple[int, ...] = ()
    closing: tuple[int, ...] = ()
    instead: int | None = None


NO_RULE = Rule()


class Pick(ctypes.Structure):
    """`Pick` of cpu/sampling.h: the same fields in the same order.

    logit_bias: (id, bias divided by the temperature). allowed_V: as `constrain` takes it.
    penalties: what the ids generated so far lose, divided by the temperature. repeated: the ids that `repetition` holds
        for.
    """

    seed: int
    index: int
    top_p: float
    temperature: float
    min_p: float
    top_k: int
    num_top: int
    confidence_top: int
    id: int
    put_in: int  # 1: the id was forced, or took another's place
    logprob: float
    confidence: float
    top_ids: ctypes.Array[ctypes.c_int]
    top_logprobs: ctypes.Array[ctypes.c_float]

    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("seed", "index")),
        ("top_p", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("_bias_ids", "_biases", "_allowed", "_banned", "_closing")),
        *((name, ctypes.c_void_p) for name in ("_penalty_ids", "_repeated", "_penalties")),
        *((name, ctypes.c_float) for name in ("temperature", "min_p", "repetition")),
        *((name, ctypes.c_int) for name in ("top_k", "_num_biases", "_num_banned", "_num_closing")),
        *((name, ctypes.c_int) for name in ("_num_penalties", "_num_repeated")),
        *((name, ctypes.c_int) for name in ("_forced", "_instead", "num_top", "confidence_top", "id", "put_in")),
        *((name, ctypes.c_float) for name in ("logprob", "confidence")),
        ("top_ids", ctypes.c_int * MOST_LIKELY),
        ("top_logprobs", ctypes.c_float * MOST_LIKELY),
    )

    def __init__(self, params: SamplingParams, seed: int) -> None:
        """seed: of 64 bits; `params` has been checked."""
        confidence, temperature = params.thinking.confidence, params.temperature
        if temperature:
            temperature = max(temperature, _LOWEST_TEMPERATURE)
        super().__init__(
            seed=seed,
            temperature=temperature,
            top_k=min(params.top_k, _MOST),
            top_p=params.top_p,
            min_p=params.min_p,
            repetition=params.repetition_penalty,
            num_top=params.top_logprobs,
            confidence_top=0 if confidence is None else min(confidence.top, _MOST),
        )
        self.address = ctypes.addressof(self)
        scale = temperature or 1.0
        self.logit_bias = tuple(
            (id, min(max(bias / scale, -_LARGEST_BIAS), _LARGEST_BIAS)) for id, bias in params.logit_bias
        )
        if self.logit_bias:
            ids, biases = zip(*self.logit_bias, strict=True)
            self._bias_room = _integers(ids), (ctypes.c_float * len(biases))(*biases)
            self._bias_ids, self._biases = (ctypes.addressof(room) for room in self._bias_room)
            self._num_biases = len(ids)
        self.allowed_V: Tensor | None = None
        self._frequency, self._presence = params.frequency_penalty / scale, params.presence_penalty / scale
        self.penalties: dict[int, float] = {}
        self.repeated: dict[int, None] = {}
        self._places: dict[int, int] = {}  # of `penalties` in the room that the compiled step reads
        self._penalty_room = _integers(()), (ctypes.c_float * 0)()
        self._repeated_room = _integers(())
        self._use(NO_RULE)

    def constrain(self, index: int, rule: Rule = NO_RULE, allowed_V: Tensor | None = None) -> None:
        """Prepare the pick of token number `index`.

        allowed_V: bool, True for each id that is accepted; None: all.
        """
        self.index = index
        if rule is not self.rule:
            self._use(rule)
        if allowed_V is not self.allowed_V:
            self.allowed_V = None if allowed_V is None else allowed_V.to("cpu", torch.bool).contiguous()
            self._allowed = None if self.allowed_V is None else self.allowed_V.data_ptr()

    @property
    def penalises(self) -> bool:
        """Whether earlier tokens change how later ones are drawn."""
        return bool(self._frequency or self._presence) or self.repetition != 1

    def read(self, ids: Iterable[int]) -> None:
        """The prompt holds these ids."""
        if self.repetition != 1:
            self.repeated.update(dict.fromkeys(ids))
            self._repeated_room = _integers(tuple(self.repeated), room=2 * len(self.repeated))
            self._repeated, self._num_repeated = ctypes.addressof(self._repeated_room), len(self.repeated)

    def said(self, id: int) -> None:
        """This id was generated."""
        if self._frequency or self._presence:
            self._penalise(id, self.penalties.get(id, -self._presence) - self._frequency)
        if self.repetition != 1 and id not in self.repeated:
            if len(self.repeated) == len(self._repeated_room):
                self.read((id,))
            else:
                self._repeated_room[len(self.repeated)] = id
                self.repeated[id] = None
                self._num_repeated = len(self.repeated)

    def inherit(self, other: Pick) -> None:
        """Everything that `other` has read and said was read and said here."""
        self.read(other.repeated)
        for id, penalty in other.penalties.items():
            self._penalise(id, penalty)

    def _penalise(self, id: int, penalty: float) -> None:
        ids, losses = self._penalty_room
        if id not in self.penalties:
            if len(self._places) == len(ids):
                room = 2 * len(ids) + 16
                self._penalty_room = ids, losses = _integers(ids, room=room), _floats(losses, room=room)
                self._penalty_ids, self._penalties = ctypes.addressof(ids), ctypes.addressof(losses)
            self._places[id] = len(self._places)
            self._num_penalties = len(self._places)
            ids[self._places[id]] = id
        self.penalties[id] = losses[self._places[id]] = min(max(penalty, -_LARGEST_BIAS), _LARGEST_BIAS)

    def likeliest(self) -> TopLogprobs:
        """The ids and log-probabilities that `num_top` asks for."""
        count = self.num_top
        return tuple(zip(self.top_ids[:count], self.top_logprobs[:count], strict=True))

    def _use(self, rule: Rule) -> None:
        self.rule = rule
        self._rule_room = _integers(rule.banned), _integers(rule.closing)
        self._banned, self._closing = (ctypes.addressof(room) for room in self._rule_room)
        self._num_banned, self._num_closing = len(rule.banned), len(rule.closing)
        self._forced = -1 if rule.forced is None else rule.forced
        self._instead = -1 if rule.instead is None else rule.instead


def _integers(values: Sequence[int] | ctypes.Array[ctypes.c_int], room: int = 0) -> ctypes.Array[ctypes.c_int]:
    """room: for how many values, where that is more than there are."""
    return (ctypes.c_int * max(room, len(values)))(*values)


def _floats(values: ctypes.Array[ctypes.c_float], room: int) -> ctypes.Array[ctypes.c_float]:
    return (ctypes.c_float * room)(*values)
