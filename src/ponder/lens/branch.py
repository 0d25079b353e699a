"""Another token at one place of an answer: what the model then goes on from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ponder.tokenizer import Tokenizer
from ponder.types import InvalidRequest, Phase, PhaseTokens, Segment


@dataclass(frozen=True, slots=True)
class Branch:
    """prompt: all that the model sees.
    begun: the ids of the answer so far, those of earlier contexts included, and the new one.
    kept: how many tokens of the last context stay, the new one not counted.
    phase: in which it goes on; None: the new token ends the answer.
    """

    prompt: tuple[int, ...]
    begun: tuple[int, ...]
    kept: int
    phase: Phase | None


def branch_at(
    segments: Sequence[Segment], place: int, id: int, tokenizer: Tokenizer, tokens: PhaseTokens, where: str
) -> Branch:
    """Put a token in the place of another.

    segments: the contexts of an answer. Only the last can be gone on from: the others were folded into it.
    place: in the last context, counted from its first token.
    where: what the caller named the two by, for errors.
    Raises InvalidRequest.
    """
    last = segments[-1]
    first, end = len(last.prompt_ids), len(last.prompt_ids) + len(last.ids) - 1
    kept = place - first
    if not 0 <= kept < len(last.ids):
        raise InvalidRequest(f"{where}: the model chose the tokens {first} to {end}: branch at one of those")
    if not 0 <= id < tokenizer.vocab_size:
        raise InvalidRequest(f"{where}: the vocabulary has the ids 0 to {tokenizer.vocab_size - 1}")
    if id in (tokens.state_open, tokens.fold):
        raise InvalidRequest(f"{where}: {tokenizer.decode([id])} folds the thought: take another token")
    before = (*last.ids[:kept], id)
    thinks = last.phases[kept] is Phase.THINK and id != tokens.think_close
    return Branch(
        prompt=(*last.prompt_ids, *before),
        begun=(*(id for segment in segments[:-1] for id in segment.ids), *before),
        kept=kept,
        phase=None if id in tokens.end else Phase.THINK if thinks else Phase.ANSWER,
    )
