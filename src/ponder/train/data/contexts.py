"""A dialogue as the contexts that it is learned in: each assistant's message after the prompt that it would be sampled
after, so that tuning teaches what sampling asks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import lru_cache

from ponder.dialogue.format import Format, Rendered
from ponder.dialogue.messages import Message, Reasoning, Role, Start, is_state
from ponder.dialogue.tools import Tool
from ponder.train.data.packing import Example, council_targets


def learned_contexts(
    dialogue: Sequence[Message], format: Format, taught: Collection[int], tools: Sequence[Tool] = ()
) -> list[Rendered]:
    """Renderings in which each message of `taught` is sampled once, and nothing else is.

    Several messages share a rendering where it shows each of them after its own prompt. What a later prompt drops or
    writes differently, reasoning or an empty think block, makes separate renderings. A turn whose thinking was
    folded has one for each of its contexts.
    """
    folded = [
        context
        for number in sorted(taught)
        if any(map(is_state, dialogue[number].parts))
        for context in format.contexts(dialogue[: number + 1], tools=tools)[:-1]
    ]
    last_user = max((i for i, message in enumerate(dialogue) if message.role is Role.USER), default=0)
    if not any(message.reasoning for message in dialogue[:last_user]):
        return folded + _shared(dialogue, format, taught, tools)
    cuts = [*[i for i, message in enumerate(dialogue) if message.role is Role.USER][1:], len(dialogue)]
    for begin, end in zip([0, *cuts[:-1]], cuts, strict=True):
        numbers = [number for number in taught if begin <= number < end]
        if numbers:
            folded += _shared(dialogue[:end], format, numbers, tools)
    return folded


def _shared(
    dialogue: Sequence[Message], format: Format, taught: Collection[int], tools: Sequence[Tool]
) -> list[Rendered]:
    """One rendering of the dialogue for all messages that it shows after their prompts, one for each other message."""
    last = max(taught, default=-1) + 1
    if not last:
        return []
    whole = format.render(dialogue[:last], train=True, tools=tools)
    together = [number for number in sorted(taught) if _begins_after_prompt(whole, dialogue, number, format)]
    apart = [
        after_prompt(format.render(dialogue[: number + 1], train=True, tools=tools), dialogue, number, format, tools)
        for number in sorted(set(taught) - set(together))
    ]
    return [*apart, _with_loss_on(whole, together)] if together else apart


def after_prompt(
    context: Rendered, dialogue: Sequence[Message], number: int, format: Format, tools: Sequence[Tool] = ()
) -> Rendered:
    """What message `number`, the last one in `context`, brings, after the prompt that it would be sampled after."""
    if _begins_after_prompt(context, dialogue, number, format):
        return _with_loss_on(context, [number])
    begin = _begin(context, number)
    if begin is None:
        return _with_loss_on(context, [number])
    prompt = _prompt(dialogue, number, format, tools)
    shift = len(prompt.ids) - begin
    brought = (span for span in context.spans if span.begin >= begin)
    moved = [replace(span, begin=span.begin + shift, end=span.end + shift) for span in brought]
    return _with_loss_on(
        replace(context, ids=(*prompt.ids, *context.ids[begin:]), spans=(*prompt.spans, *moved)), [number]
    )


def _prompt(dialogue: Sequence[Message], number: int, format: Format, tools: Sequence[Tool]) -> Rendered:
    return format.render(dialogue[:number], start=_start(dialogue[number]), tools=tools)


def _start(message: Message) -> Start:
    return Start.THINK if message.parts and isinstance(message.parts[0], Reasoning) else Start.DIRECT


@lru_cache(maxsize=64)
def _opening(format: Format, start: Start) -> tuple[int, ...]:
    """The ids of the generation prompt, the same after every conversation."""
    prompt = format.render((Message.user("."),), start=start)
    return prompt.ids[prompt.spans[-1].begin :]


def _begins_after_prompt(context: Rendered, dialogue: Sequence[Message], number: int, format: Format) -> bool:
    """Whether the generation prompt stands before what message `number` brings. What was said before that is written
    alike in both, since no reasoning is dropped between them."""
    begin = _begin(context, number)
    if begin is None:
        return False
    if any(map(is_state, dialogue[number].parts)):
        return True  # what follows the last fold is sampled after the state, as `Format.render` has it
    opening = _opening(format, _start(dialogue[number]))  # type: ignore[arg-type]  # a format is hashed by identity
    return context.ids[max(0, begin - len(opening)) : begin] == opening


def _begin(context: Rendered, number: int) -> int | None:
    """Where the ids begin that message `number` brings; None: this rendering shows another message than was sampled."""
    begins = (span.begin for span in context.spans if span.sampled and span.message_index == number)
    return next(begins, None)


def _with_loss_on(context: Rendered, numbers: Collection[int]) -> Rendered:
    spans = tuple(replace(span, sampled=span.sampled and span.message_index in numbers) for span in context.spans)
    return replace(context, spans=spans)


def example_of(context: Rendered, learned: Sequence[bool], format: Format) -> Example:
    """A context as an example. learned: for each of its ids, whether the model learns to produce it."""
    targets = council_targets(context.ids, format.phase_tokens.council)
    return Example(ids=context.ids, learned=list(learned), targets=targets)
