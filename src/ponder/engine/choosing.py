"""One id for each sequence that is ready: sampled from its logits under its phase's rules, its bias, its grammar."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import NamedTuple

import torch
from torch import Tensor

from ponder.engine.phases import Phases
from ponder.engine.sampling import logprobs, sample, uniforms
from ponder.engine.sequence import Sequence
from ponder.types import Origin, Phase, PonderError, TopLogprobs


class Chosen(NamedTuple):
    """error: the sequence's grammar gave up; the token does not count."""

    id: int
    logprob: float
    origin: Origin
    top_logprobs: TopLogprobs
    error: PonderError | None


def choose(ready: Seq[Sequence], logits_SV: Tensor, phases: Phases) -> list[Chosen]:
    """The next token of each sequence. What the rules force takes the place of what was sampled; log-probabilities are
    those of the model, before rules, bias and grammar."""
    rules = [phases.rule(sequence) for sequence in ready]
    banned = [(row, id) for row, rule in enumerate(rules) if rule for id in rule.banned]
    governed = [
        row
        for row, (sequence, rule) in enumerate(zip(ready, rules, strict=True))
        if sequence.constraint is not None and sequence.phase is Phase.ANSWER and (rule is None or rule.forced is None)
    ]
    uniform_S = uniforms([sequence.seed for sequence in ready], [sequence.num_generated for sequence in ready])
    params = [sequence.params for sequence in ready]
    errors: list[PonderError | None] = [None] * len(ready)
    added_SV = _adjustments(ready, governed, banned, errors, logits_SV)
    ids_S, scaled_SV = sample(logits_SV, params, uniform_S, added_SV)
    ids, origins = ids_S.tolist(), [Origin.SAMPLED] * len(ready)
    for row, rule in enumerate(rules):
        put_in = rule and phases.resolve(ready[row], rule, ids[row])
        if put_in is not None:
            ids[row], origins[row] = put_in, Origin.FORCED
    if Origin.FORCED in origins:
        ids_S = torch.tensor(ids, device=ids_S.device)
    for row in governed:
        constraint = ready[row].constraint
        assert constraint is not None
        try:
            if errors[row] is None:
                constraint.advance(ids[row])
        except PonderError as error:
            errors[row] = error
    _note_confidence(ready, scaled_SV)
    tops = _top_logprobs(ready, scaled_SV)
    return [Chosen(*each) for each in zip(ids, logprobs(scaled_SV, ids_S).tolist(), origins, tops, errors, strict=True)]


def _adjustments(
    ready: Seq[Sequence],
    governed: Seq[int],
    banned: Seq[tuple[int, int]],
    errors: list[PonderError | None],
    logits_SV: Tensor,
) -> Tensor | None:
    """What is added to the scores before sampling, (S, V): biases, and -inf for what is not allowed. None: nothing.
    Errors of the grammars go into `errors`."""
    biased = [row for row, sequence in enumerate(ready) if sequence.params.logit_bias]
    if not (banned or governed or biased):
        return None
    added_SV = torch.zeros(logits_SV.shape, device=logits_SV.device)
    for row in biased:
        ids, biases = zip(*ready[row].params.logit_bias, strict=True)
        temperature = ready[row].params.temperature or 1.0
        added_SV[row, list(ids)] = torch.tensor(biases, device=added_SV.device) / temperature
    if banned:
        rows, ids = zip(*banned, strict=True)
        added_SV[list(rows), list(ids)] = float("-inf")
    for row in governed:
        constraint = ready[row].constraint
        assert constraint is not None
        try:
            added_SV[row].masked_fill_(~constraint.allowed().to(added_SV.device), float("-inf"))
        except PonderError as error:
            errors[row] = error
    return added_SV


def _note_confidence(ready: Seq[Sequence], scaled_SV: Tensor) -> None:
    """Append each thinking token's confidence where a limit asks for it."""
    for row, sequence in enumerate(ready):
        stop = sequence.params.thinking.confidence
        if stop is None or sequence.phase is not Phase.THINK:
            continue
        likeliest = scaled_SV[row].log_softmax(-1).topk(min(stop.top, scaled_SV.shape[-1])).values
        sequence.confidences.append(-float(likeliest.mean()))
        if len(sequence.confidences) > stop.window:
            sequence.confidences.popleft()


def _top_logprobs(ready: Seq[Sequence], scaled_SV: Tensor) -> list[TopLogprobs]:
    tops: list[TopLogprobs] = [()] * len(ready)
    asked = [row for row, sequence in enumerate(ready) if sequence.params.top_logprobs]
    if asked:
        most = max(ready[row].params.top_logprobs for row in asked)
        values_SC, ids_SC = scaled_SV[asked].log_softmax(-1).topk(most)
        for row, values, ids in zip(asked, values_SC.tolist(), ids_SC.tolist(), strict=True):
            count = ready[row].params.top_logprobs
            tops[row] = tuple(zip(ids[:count], values[:count], strict=True))
    return tops
