"""From what was sampled to data within its size: how much attention is kept, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ponder.lens.look import Look, neighbours, observe
from ponder.lens.page import Near, Told, lens_json, whole_page
from ponder.model.transformer import Transformer
from ponder.tokenizer import Tokenizer
from ponder.types import InvalidRequest, Origin, Phase, Segment

LARGEST = 8_000_000  # bytes of a page
_RECENT = 256  # thinking tokens whose attention is kept where not all can be
_KIND = {Phase.THINK: "think", Phase.ANSWER: "answer", Phase.TOOL: "tool"}

Keep = Callable[[Segment, bool], Sequence[int] | None]


def _all(segment: Segment, last: bool) -> Sequence[int] | None:
    return None


def _of_the_end(segment: Segment, last: bool) -> Sequence[int]:
    """The answer and the last thinking tokens, each as it was chosen and as it was read."""
    if not last:
        return ()
    begin, length = len(segment.prompt_ids), len(segment.prompt_ids) + len(segment.ids)
    thinking = sum(phase is Phase.THINK for phase in segment.phases)
    return range(max(0, begin - 1 + max(0, thinking - _RECENT)), length)


def _none(segment: Segment, last: bool) -> Sequence[int]:
    return ()


_LEVELS: tuple[tuple[Keep, bool, str], ...] = (
    (_all, False, ""),
    (_of_the_end, False, "The attention of the answer and of the last {recent} thinking tokens is kept, no other"),
    (
        _of_the_end,
        True,
        "Attention is the mean of a layer's heads, for the answer and the last {recent} thinking tokens",
    ),
    (_none, False, "No attention is kept"),
)


def draw(
    model: Transformer,
    tokenizer: Tokenizer,
    segments: Sequence[Segment],
    *,
    title: str,
    name: str,
    branch: str = "",
    largest: int = LARGEST,
) -> str:
    """The page of one answer: see `drawn_data`.

    branch: see `lens_json`.
    largest: bytes of the whole page.
    """
    around = len(whole_page(title, "").encode())
    data = drawn_data(model, tokenizer, segments, title=title, name=name, branch=branch, largest=largest, around=around)
    return whole_page(title, data)


def drawn_data(
    model: Transformer,
    tokenizer: Tokenizer,
    segments: Sequence[Segment],
    *,
    title: str,
    name: str,
    branch: str = "",
    notes: Sequence[str] = (),
    largest: int = LARGEST,
    around: int = 0,
) -> str:
    """What a lens draws of one answer, as JSON.

    model: in float32, and the one whose tokens these are.
    segments: the contexts of the answer, in their order. One without sampled ids is a text that was only read.
    name: the model's, as it is shown.
    branch: see `lens_json`.
    notes: sentences that stand before those on what was left out.
    largest: bytes, with what stands around the data. Attention is left out until it fits, and a note says what was.
        Raises InvalidRequest where it cannot fit.
    around: bytes of the file that are not data.
    """
    tokens = sum(len(segment.prompt_ids) + len(segment.ids) for segment in segments)
    for level, (keep, mean_head, said) in enumerate(_LEVELS):
        final = level == len(_LEVELS) - 1
        if not final and _least_bytes(model, segments, keep, mean_head=mean_head) > largest:
            continue
        looks = [
            observe(model, _ids(each), queries=keep(each, each is segments[-1]), mean_head=mean_head)
            for each in segments
        ]
        left_out = (
            f"{said.format(recent=_RECENT)}: with more, this file would pass {largest / 1e6:g} MB." if said else ""
        )
        written = lens_json(
            _told(segments, looks),
            tokenizer,
            title=title,
            model=name,
            notes=[note for note in (*notes, _precision(segments, looks), left_out) if note],
            near=_near(model, looks),
            branch=branch,
        )
        size = len(written.encode()) + around
        if size <= largest:
            return written
    raise InvalidRequest(
        f"the page of {tokens:,} tokens takes {size / 1e6:.1f} MB without any attention, more than "
        f"{largest / 1e6:g} MB: allow more (--largest), or cap the thinking (--thinking)"
    )


def _ids(segment: Segment) -> tuple[int, ...]:
    return (*segment.prompt_ids, *segment.ids)


def _least_bytes(model: Transformer, segments: Sequence[Segment], keep: Keep, *, mean_head: bool) -> float:
    """What the attention would take at the least: a tenth of a byte a weight was the best that deflating reached."""
    rows = 0
    for segment in segments:
        kept = keep(segment, segment is segments[-1])
        queries = np.arange(len(_ids(segment))) if kept is None else np.array(kept)
        rows += int((queries + 1).sum()) if len(queries) else 0
    heads = 1 if mean_head else model.config.num_heads
    return rows * heads * model.config.num_layers * 0.1


def _told(segments: Sequence[Segment], looks: Sequence[Look]) -> list[Told]:
    given = len(segments[0].prompt_ids)  # what a later context's prompt has beyond it is the state that was thought
    told = []
    for segment, seen in zip(segments, looks, strict=True):
        prompt = len(segment.prompt_ids)
        kinds = ["prompt"] * min(given, prompt) + ["think"] * max(0, prompt - given)
        kinds += [_KIND[phase] for phase in segment.phases]
        forced = [prompt + place for place, origin in enumerate(segment.origins) if origin is not Origin.SAMPLED]
        told.append(Told(look=seen, kinds=kinds, begin=prompt, forced=forced))
    return told


def _precision(segments: Sequence[Segment], looks: Sequence[Look]) -> str:
    """How far the numbers of the page are from those that were sampled with."""
    differences: list[float] = []
    sampled = 0
    for segment, seen in zip(segments, looks, strict=True):
        sampled += len(segment.ids)
        here = seen.logprobs_T[len(segment.prompt_ids) :]
        off = np.abs(here - np.array(segment.logprobs, np.float32))
        differences += off[np.isfinite(off)].tolist()
    if not differences:
        return ""
    return (
        f"All numbers are computed in float32. The log-probabilities of the {sampled:,} tokens as they were sampled "
        f"differ from these by {max(differences):.1g} at most."
    )


def _near(model: Transformer, looks: Sequence[Look]) -> Near:
    """The neighbours of every token of the text."""
    ids = np.unique(np.concatenate([seen.ids_T for seen in looks])).tolist()
    return (ids, *neighbours(model, ids))


def read_only(ids: Sequence[int]) -> Segment:
    """A text that is read and not gone on with."""
    return Segment(prompt_ids=tuple(ids), ids=(), logprobs=(), phases=(), origins=(), weights_version=0)
