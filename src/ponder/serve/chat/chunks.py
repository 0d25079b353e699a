"""A streamed answer as `chat.completion.chunk`s."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ponder.sampler.protocol import CallDelta, Completion, Delta, Done, Streamed
from ponder.serve.chat.write import Writer, finish_reason
from ponder.types import Phase

Choice = dict[str, Any]


class Chunks:
    """What each item of a stream comes to, in the order of the API: of each choice the role, then pieces of thinking
    (where they are shown), content with its log-probabilities and calls, then the reason for its end.

    done: the completions that have ended.
    """

    def __init__(self, writer: Writer) -> None:
        self.done: list[Completion] = []
        self._writer = writer
        self._begun: set[int] = set()
        self._calls: Counter[int] = Counter()  # how many are told, by choice

    def choices(self, batch: list[Streamed]) -> list[Choice]:
        """One chunk each; neighbouring pieces of one field are joined."""
        told: list[Choice] = []
        for item in batch:
            if item.index not in self._begun:
                self._begun.add(item.index)
                told.append(_choice(item.index, {"role": "assistant", "content": "", "refusal": None}))
            if isinstance(item, Done):
                told += self._ending(item)
            elif isinstance(item, CallDelta):
                self._call(item, told)
            else:
                self._text(item, told)
        return told

    def _text(self, item: Delta, told: list[Choice]) -> None:
        field = self._writer.reasoning_field if item.phase is Phase.THINK else "content"
        if field is None:
            return
        last = told[-1] if told else None
        if last is None or last["index"] != item.index or last["delta"].keys() != {field}:
            told.append(last := _choice(item.index, {field: ""}))
        last["delta"][field] += item.text
        if spelled := self._writer.spelled(item.tokens):
            last["logprobs"] = last["logprobs"] or {"content": [], "refusal": None}
            last["logprobs"]["content"] += spelled

    def _call(self, item: CallDelta, told: list[Choice]) -> None:
        """Id and name in a chunk of their own, then the arguments."""
        if item.name is not None:
            self._calls[item.index] += 1
            told.append(_call(item.index, item.call, self._writer.call(item.index, item.call, item.name, "", item.id)))
        if not item.arguments:
            return
        piece = {"function": {"arguments": item.arguments}}
        last = told[-1]["delta"].get("tool_calls", [{}])[0] if told and told[-1]["index"] == item.index else {}
        if last.get("index") == item.call and "id" not in last:
            last["function"]["arguments"] += item.arguments
        else:
            told.append(_call(item.index, item.call, piece))

    def _ending(self, item: Done) -> list[Choice]:
        self.done.append(item.completion)
        ends = [
            _call(item.index, number, call)
            for number, call in enumerate(self._writer.calls(item.index, item.completion))
            if number >= self._calls[item.index]  # a sampler may keep them to the end
        ]
        return [*ends, {**_choice(item.index, {}), "finish_reason": finish_reason(item.completion)}]


def _call(index: int, number: int, told: dict[str, Any]) -> Choice:
    return _choice(index, {"tool_calls": [{"index": number, **told}]})


def _choice(index: int, delta: dict[str, Any]) -> Choice:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
