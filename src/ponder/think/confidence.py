"""Samples that are given up while they think, because the model has become unsure (DeepConf, arXiv 2508.15260): the
threshold from a calibration split, the ask that stops below it, and which samples did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ponder.sampler.protocol import Capabilities, Completion
from ponder.think.ask import Ask
from ponder.types import ConfidenceStop, InvalidRequest, Origin, Phase

WINDOW = 64  # tokens of a group; the paper's 2,048 are longer than most thoughts here
TOP = 20


def lowest_confidence(completion: Completion, window: int = WINDOW) -> float | None:
    """The lowest mean confidence of `window` neighbouring THINK tokens, each minus the mean of the log-probabilities of
    the likeliest ids at its place. None: it thought for less.

    Raises InvalidRequest for a completion that was drawn without `top_logprobs`.
    """
    confidences = [
        -sum(logprob for _, logprob in top[:TOP]) / len(top[:TOP])
        for segment in completion.segments
        for top, phase in zip(segment.top_logprobs, segment.phases, strict=False)
        if phase is Phase.THINK and top
    ]
    if not any(segment.top_logprobs for segment in completion.segments):
        raise InvalidRequest(f"the completion has no likeliest ids to calibrate by: draw it with top_logprobs={TOP}")
    groups = [confidences[first : first + window] for first in range(len(confidences) - window + 1)]
    return min((sum(group) / window for group in groups), default=None)


def confidence_threshold(completions: Sequence[Completion], keep: float = 0.9, window: int = WINDOW) -> float:
    """The confidence below which all but a share of `keep` of these completions fall at some time. Draw them on
    problems that nothing is measured on. The paper's "high" keeps 0.9, its "low" 0.1."""
    if not 0 < keep <= 1:
        raise InvalidRequest(f"keep must be above 0 and at most 1 (got {keep})")
    lowest = sorted(low for each in completions if (low := lowest_confidence(each, window)) is not None)
    if not lowest:
        raise InvalidRequest(f"no completion thought for {window} tokens: take a smaller window")
    return lowest[int((1 - keep) * len(lowest))]


def stopping_below(ask: Ask, threshold: float, window: int, capabilities: Capabilities) -> Ask:
    """The ask with thinking that is closed once its confidence falls below the threshold."""
    limits = ask.request(capabilities, n=1).params.thinking
    stop = ConfidenceStop(threshold=threshold, window=window, top=TOP)
    return replace(ask, effort=None, min_thinking=0, thinking=replace(limits, confidence=stop))


def was_given_up(completion: Completion, ask: Ask, capabilities: Capabilities) -> bool:
    """Whether the thinking was closed for its confidence: the close was forced, and no limit asked for that yet."""
    segment = completion.segment
    if segment is None:
        return False
    thought = sum(phase is Phase.THINK for phase in segment.phases)
    if not thought or thought == len(segment.ids) or segment.origins[thought - 1] is not Origin.FORCED:
        return False
    params = ask.request(capabilities, n=1).params
    generated = completion.usage.completion_tokens - (len(segment.ids) - thought)
    reached = [params.thinking.cap is not None and completion.usage.reasoning_tokens >= params.thinking.cap]
    if params.max_tokens is not None:
        reached.append(generated >= params.max_tokens - params.answer_room)
    if capabilities.window is not None:
        reached.append(len(segment.prompt_ids) + thought >= capabilities.window - params.answer_room)
    return not any(reached)
