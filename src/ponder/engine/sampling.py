"""From logits to one id per sequence, for a whole batch at once, in torch: the rules that `cpu/sampling.h` keeps to.

Axes: S sequences of the batch, V vocabulary. Each sequence draws one uniform number per token, a hash of its seed and
the token's index, and inverts its own distribution with it: the same seed gives the same tokens, whatever stands beside
it in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ponder.kernels.sampling import NotFinite, Pick
from ponder.types import SamplingParams

Rules = SamplingParams | Pick
_CANDIDATES = 128  # ids that truncation looks at first: sorting them all costs as much as a small model's step


def pick_with_torch(logits_SV: Tensor, picks: Sequence[Pick]) -> None:
    """Make each pick from its row of logits. Log-probabilities are the model's, before rule, bias and grammar.

    Raises NotFinite.
    """
    if not torch.isfinite(logits_SV.amax(-1)).all():
        raise NotFinite("the step gave logits that are not finite")
    uniform_S = uniforms([p.seed for p in picks], [p.index for p in picks])
    ids_S, scaled_SV = sample(logits_SV, picks, uniform_S, _added(logits_SV, picks), picks)
    for p, sampled in zip(picks, ids_S.tolist(), strict=True):
        instead = p.rule.forced if p.rule.forced is not None else p.rule.instead if sampled in p.rule.closing else None
        p.put_in, p.id = instead is not None, sampled if instead is None else instead
    if any(p.put_in for p in picks):
        ids_S = torch.tensor([p.id for p in picks], device=ids_S.device)
    for p, logprob in zip(picks, logprobs(scaled_SV, ids_S).tolist(), strict=True):
        p.logprob = logprob
    _name_likeliest(scaled_SV, picks)


def _added(logits_SV: Tensor, picks: Sequence[Pick]) -> Tensor | None:
    """What the scores gain before sampling, (S, V): biases, and -inf for what is not allowed. None: nothing."""
    biases = [(row, id, bias) for row, p in enumerate(picks) for id, bias in (*p.logit_bias, *p.penalties.items())]
    banned = [(row, id) for row, p in enumerate(picks) for id in p.rule.banned]
    masks = [(row, p.allowed_V) for row, p in enumerate(picks) if p.allowed_V is not None]
    if not (biases or banned or masks):
        return None
    added_SV = torch.zeros(logits_SV.shape, device=logits_SV.device)
    if biases:
        rows, ids, values = map(list, zip(*biases, strict=True))
        added_SV.index_put_(
            (torch.tensor(rows, device=added_SV.device), torch.tensor(ids, device=added_SV.device)),
            torch.tensor(values, device=added_SV.device),
            accumulate=True,  # an id may be named twice
        )
    if banned:
        rows, ids = map(list, zip(*banned, strict=True))
        added_SV[rows, ids] = float("-inf")
    for row, allowed_V in masks:
        added_SV[row].masked_fill_(~allowed_V.to(added_SV.device), float("-inf"))
    return added_SV


def _name_likeliest(scaled_SV: Tensor, picks: Sequence[Pick]) -> None:
    """The ids that `num_top` asks for, and the confidence that `confidence_top` does."""
    asked = [row for row, p in enumerate(picks) if p.num_top or p.confidence_top]
    if not asked:
        return
    V = scaled_SV.shape[-1]
    most = min(max(max(picks[row].num_top, picks[row].confidence_top) for row in asked), V)
    values_SC, ids_SC = scaled_SV[asked].log_softmax(-1).topk(most)
    for row, values, ids in zip(asked, values_SC.tolist(), ids_SC.tolist(), strict=True):
        p, top, count = picks[row], picks[row].num_top, min(picks[row].confidence_top, V)
        p.top_ids[:top], p.top_logprobs[:top] = ids[:top], values[:top]
        p.confidence = -sum(values[:count]) / count if count else 0.0


def uniforms(seeds: Sequence[int], indices: Sequence[int]) -> Tensor:
    """One float64 in [0, 1) for each (seed, token index): number `index` of the stream that SplitMix64 (Steele et al.,
    OOPSLA 2014, figure 17) gives from the mixed seed."""
    seed_S = np.array(seeds, dtype=np.uint64)
    step_S = (np.array(indices, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    # 52 bits, so that a product with any total stays below that total.
    return torch.from_numpy((_mix(_mix(seed_S) + step_S) >> np.uint64(12)).astype(np.float64) * 2.0**-52)


def sample(
    logits_SV: Tensor,
    params: Sequence[Rules],
    uniform_S: Tensor,
    added_SV: Tensor | None = None,
    picks: Sequence[Pick] = (),
) -> tuple[Tensor, Tensor]:
    """Sampled ids_S, and scaled_SV: float32 logits divided by the temperature (at temperature 0 by 1), of which
    `logprobs` takes what it reports.

    added_SV: what the scaled scores gain before an id is chosen; -inf where it may not be.
    picks: whose repetition penalties come before that.

    Truncation is by top-k, then top-p of what that leaves, then min-p relative to the most likely id; each always
    leaves one id.
    """
    greedy = all(p.temperature == 0 for p in params)
    temperature_S = torch.tensor([p.temperature or 1.0 for p in params], device=logits_SV.device)
    scaled_SV = logits_SV.float() if greedy else logits_SV.float() / temperature_S[:, None]
    allowed_SV = _without_repetition(scaled_SV, picks)
    allowed_SV = allowed_SV if added_SV is None else allowed_SV + added_SV
    ids_S = allowed_SV.argmax(-1)
    if greedy:
        return ids_S, scaled_SV
    whole = [row for row, p in enumerate(params) if p.temperature and not _truncates(p)]
    cut = [row for row, p in enumerate(params) if p.temperature and _truncates(p)]
    uniform_S = uniform_S.to(logits_SV.device)
    if len(whole) == len(params):
        ids_S = _draw(allowed_SV.softmax(-1), uniform_S)
    elif whole:
        ids_S[whole] = _draw(allowed_SV[whole].softmax(-1), uniform_S[whole])
    if cut:
        ids_S[cut] = _draw_truncated(allowed_SV[cut].softmax(-1), [params[row] for row in cut], uniform_S[cut])
    return ids_S, scaled_SV


def _without_repetition(scaled_SV: Tensor, picks: Sequence[Pick]) -> Tensor:
    """Scores after the repetition penalty; the same tensor where there is none."""
    rows = [row for row, p in enumerate(picks) if p.repeated]
    if not rows:
        return scaled_SV
    penalised_SV = scaled_SV.clone()
    for row in rows:
        ids = torch.tensor(list(picks[row].repeated), device=scaled_SV.device)
        scores = penalised_SV[row, ids]
        penalty = picks[row].repetition
        penalised_SV[row, ids] = torch.where(scores > 0, scores / penalty, scores * penalty)
    return penalised_SV


def logprobs(scaled_SV: Tensor, ids_S: Tensor) -> Tensor:
    """Natural log-probability of one id per sequence: after temperature, before masks and truncation."""
    return scaled_SV.gather(-1, ids_S[:, None])[:, 0] - scaled_SV.logsumexp(-1)


def _truncates(params: Rules) -> bool:
    return bool(params.top_k) or params.top_p < 1 or params.min_p > 0


def _draw(weights_SV: Tensor, uniform_S: Tensor) -> Tensor:
    """Invert each row's cumulative distribution. Ids of weight 0 are never drawn."""
    cumulative_SV = weights_SV.cumsum(-1, dtype=torch.float64)
    target_S1 = uniform_S[:, None] * cumulative_SV[:, -1:]
    return torch.searchsorted(cumulative_SV, target_S1, right=True)[:, 0]


def _draw_truncated(
    probs_SV: Tensor, params: Sequence[Rules], uniform_S: Tensor, num_candidates: int = _CANDIDATES
) -> Tensor:
    """Draw among the C most likely ids, C = num_candidates. Rows that keep ids down to the last candidate's
    probability are drawn again among all ids: which of them stand at that edge may be arbitrary."""
    V, device = probs_SV.shape[-1], probs_SV.device
    candidates_SC, order_SC = _most_likely(probs_SV, min(num_candidates, V))
    C = candidates_SC.shape[-1]
    top_k_S1 = torch.tensor([[p.top_k or V] for p in params], device=device)
    top_p_S1 = torch.tensor([[p.top_p] for p in params], dtype=torch.float64, device=device)
    min_p_S1 = torch.tensor([[p.min_p] for p in params], device=device)
    in_k_SC = candidates_SC.masked_fill(torch.arange(C, device=device) >= top_k_S1, 0)
    mass_SC = in_k_SC.cumsum(-1, dtype=torch.float64)
    whole_S1 = torch.where(top_k_S1 <= C, mass_SC[:, -1:], probs_SV.sum(-1, keepdim=True, dtype=torch.float64))
    # An id is beyond top-p when those before it reach the mass; top_p 1 is off even where the sum falls short of 1.
    beyond_SC = (mass_SC - in_k_SC >= top_p_S1 * whole_S1) & (top_p_S1 < 1)
    beyond_SC |= in_k_SC < min_p_S1 * in_k_SC[:, :1]
    beyond_SC[:, 0] = False
    kept_SC = in_k_SC.masked_fill(beyond_SC, 0)
    ids_S = order_SC.gather(-1, _draw(kept_SC, uniform_S)[:, None])[:, 0]
    if C < V:
        undecided_S = ((kept_SC > 0) & (candidates_SC == candidates_SC[:, -1:])).any(-1)
        undecided_S |= ((top_k_S1 > C) & (top_k_S1 < V))[:, 0]  # the mass that top-k leaves is not known
        rows = undecided_S.nonzero()[:, 0].tolist()
        if rows:
            ids_S[rows] = _draw_truncated(probs_SV[rows], [params[row] for row in rows], uniform_S[rows], V)
    return ids_S


def _most_likely(probs_SV: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest probabilities of each row and their ids, the largest first, equal ones by id."""
    if count == probs_SV.shape[-1]:
        return probs_SV.sort(dim=-1, descending=True, stable=True)
    ids_SC = probs_SV.topk(count, sorted=False).indices.sort(-1).values
    sorted_SC, order_SC = probs_SV.gather(-1, ids_SC).sort(dim=-1, descending=True, stable=True)
    return sorted_SC, ids_SC.gather(-1, order_SC)


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
