"""Dialogues for chain-of-thought tuning: demonstrations of tasks, and `messages` JSONL as TRL and others write it.

A conversation becomes one or more examples, loss on the assistant's tokens only. Where an earlier turn carries
reasoning, which a later prompt would not show, each assistant turn is an example of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from ponder.dialogue.format import Format, Rendered, SpanKind
from ponder.dialogue.interchange import from_dicts
from ponder.dialogue.messages import Message, Part, Reasoning, ReasoningPolicy, Role, Text, is_state
from ponder.tasks.gym import question_hash
from ponder.tasks.protocol import (
    DemonstratedEnvironment,
    DemonstratedTask,
    Demonstration,
    EnvironmentTask,
    Problem,
    find_mistakes,
    without_marks,
)
from ponder.tasks.registry import load_task
from ponder.tokenizer import Tokenizer
from ponder.train.data.packing import Example
from ponder.train.data.records import read_records
from ponder.train.recipe.sections import MixRecipe
from ponder.types import DataError, FormatError, RecipeError


class Examples:
    """The mix of an SFT stage: `draw(rng)` gives the next example, the same for the same state of `rng`."""

    def __init__(self, mix: Sequence[MixRecipe], format: Format, *, tokenizer: Tokenizer, sequence: int) -> None:
        self.format = format
        self.sequence = sequence
        self.sources = [_source(entry, format, tokenizer) for entry in mix]
        self.weights = [entry.weight for entry in mix]

    def draw(self, rng: Random) -> tuple[Example, int]:
        """(example, hash of its question; 0 where there is none). `DataError` if it is longer than a row."""
        (source,) = rng.choices(self.sources, self.weights)
        example, question, where = source.draw(rng)
        if len(example.ids) > self.sequence + 1:
            raise DataError(
                f"{where}: an example of {len(example.ids)} tokens does not fit sft.sequence = {self.sequence}; "
                "raise sft.sequence, or lower max_level or drop the line"
            )
        return example, question_number(question) if question else 0


def _source(entry: MixRecipe, format: Format, tokenizer: Tokenizer) -> _Task | _Environment | _Messages:
    if not entry.task:
        return _Messages(entry, format)
    task = teachable(entry.task)
    if isinstance(task, DemonstratedEnvironment):
        return _Environment(task, entry, format, tokenizer)
    return _Task(task, entry, format, tokenizer)


class _Task:
    """Demonstrations, thinking or direct, at levels drawn evenly."""

    def __init__(self, task: DemonstratedTask, entry: MixRecipe, format: Format, tokenizer: Tokenizer) -> None:
        self.task, self.entry, self.format, self.tokenizer = task, entry, format, tokenizer

    def draw(self, rng: Random) -> tuple[Example, str, str]:
        level = rng.uniform(self.entry.min_level, self.entry.max_level)
        problem = self.task.sample(rng, level)
        thinking = rng.random() >= (self.entry.direct or 0.0)
        demonstration = self.task.demonstrate(problem, rng)
        number = _draw_context(rng, len(demonstration.folds)) if thinking else 0
        parts = _context(demonstration, number) if thinking else ()
        dialogue = [Message.user(problem.question), self._answer(demonstration, parts)]
        if rng.random() < self.entry.earlier:
            before = self.task.sample(rng, level)
            answer = self._answer(self.task.demonstrate(before, rng), ())
            dialogue = [Message.user(before.question), answer, *dialogue]
        contexts = self.format.contexts(list(map(_without_marks, dialogue)))
        context = contexts[min(number, 1)]  # the first of those that a state opens
        learned = _learned(context, dialogue, len(dialogue) - 1, self.tokenizer)
        return (
            Example(ids=context.ids, learned=learned),
            problem.question,
            f"task {self.entry.task} at level {level:.2f}",
        )

    def _answer(self, demonstration: Demonstration, thinking: tuple[Part, ...]) -> Message:
        """The assistant's turn. An answer in pieces is encoded piece by piece."""
        ids = [token for piece in demonstration.pieces for token in self.tokenizer.encode(piece)]
        return Message(Role.ASSISTANT, (*thinking, Text(demonstration.answer, tuple(ids) or None)))


class _Environment:
    """Demonstrations of several turns: the model's own are learned, what the environment says is not."""

    def __init__(self, task: DemonstratedEnvironment, entry: MixRecipe, format: Format, tokenizer: Tokenizer) -> None:
        self.task, self.entry, self.format, self.tokenizer = task, entry, format, tokenizer

    def draw(self, rng: Random) -> tuple[Example, str, str]:
        level = rng.uniform(self.entry.min_level, self.entry.max_level)
        problem = self.task.sample(rng, level)
        thinking = rng.random() >= (self.entry.direct or 0.0)
        dialogue = self._dialogue(problem, rng, thinking=thinking)
        before: list[Message] = []
        if rng.random() < self.entry.earlier:
            before = self._dialogue(self.task.sample(rng, level), rng, thinking=False)
        dialogue, first = [*before, *dialogue], len(before)
        contexts = self._contexts(list(map(_without_marks, dialogue)), first)
        context = contexts[_draw_context(rng, len(contexts) - 1)]
        learned = _learned(context, dialogue, first, self.tokenizer)
        return (
            Example(ids=context.ids, learned=learned),
            problem.question,
            f"task {self.entry.task} at level {level:.2f}",
        )

    def _dialogue(self, problem: Problem, rng: Random, *, thinking: bool) -> list[Message]:
        shown = self.task.show(problem, rng)
        return [Message.user(problem.question), *(shown if thinking else map(_without_reasoning, shown))]

    def _contexts(self, dialogue: Sequence[Message], first: int) -> list[Rendered]:
        """Those that end in a fold, of messages `first` and later, and the one that holds the answer."""
        folded = [
            context
            for i, message in enumerate(dialogue)
            if i >= first and any(map(is_state, message.parts))
            for context in self.format.contexts(dialogue[: i + 1])[:-1]
        ]
        return [*folded, self.format.render(dialogue, train=True)]


def _without_reasoning(message: Message) -> Message:
    return replace(message, parts=tuple(part for part in message.parts if not isinstance(part, Reasoning)))


def _draw_context(rng: Random, last: int) -> int:
    """One context of a folded thought (all of them would fill the rows with a single problem): the first and the last,
    which are unlike those between and would be rare in long thoughts, in a sixth of the draws or more each."""
    return rng.choices((0, last, rng.randint(0, last)), (1, 1, 4))[0]


def _context(demonstration: Demonstration, number: int) -> tuple[Part, ...]:
    """What context `number` of the thinking sees and brings, mistakes marked: the state before it, its thought, and
    what that is folded into. Nothing else: rendering all contexts of a long thought takes the square of its length."""
    folds = demonstration.folds
    before = (Reasoning(folds[number - 1].state, state=True),) if number else ()
    if number == len(folds):
        return (*before, Reasoning(demonstration.reasoning))
    return (*before, Reasoning(folds[number].thought), Reasoning(folds[number].state, state=True))


def _without_marks(message: Message) -> Message:
    parts = (replace(p, text=without_marks(p.text)) if isinstance(p, Reasoning) else p for p in message.parts)
    return replace(message, parts=tuple(parts))


def _learned(context: Rendered, dialogue: Sequence[Message], first: int, tokenizer: Tokenizer) -> list[bool]:
    """What the messages of `dialogue` from number `first` on bring new in this context, but for the tokens that touch a
    mistake in them."""
    learned = [False] * len(context.ids)
    for span in context.spans:
        if not span.sampled or span.message_index < first:
            continue
        learned[span.begin : span.end] = [True] * (span.end - span.begin)
        part = None if span.part_index is None else dialogue[span.message_index].parts[span.part_index]
        if not isinstance(part, Reasoning) or span.kind not in (SpanKind.REASONING, SpanKind.STATE):
            continue
        mistakes = find_mistakes(part.text)
        if not mistakes:
            continue
        at_text, begins, ends = _place(context.ids[span.begin : span.end], without_marks(part.text), tokenizer)
        for at, token in enumerate(zip(begins, ends, strict=True), span.begin + at_text):
            if any(token[0] < end and token[1] > begin for begin, end in mistakes):
                learned[at] = False
    return learned


def _place(ids: Sequence[int], text: str, tokenizer: Tokenizer) -> tuple[int, list[int], list[int]]:
    """Where in `ids` the text begins, and the begin and end of its tokens in it. A format may write control tokens
    around it, and line breaks, which may be one token with its last characters."""
    for written in (text, text.strip("\n") + "\n"):
        encoded, begins = tokenizer.encode_with_offsets(written)
        for first in range(len(ids) - len(encoded), -1, -1):
            if list(ids[first : first + len(encoded)]) == encoded:
                shift = len(text) - len(text.lstrip("\n")) if written != text else 0
                ends = [*begins[1:], len(written)]
                return first, [begin + shift for begin in begins], [end + shift for end in ends]
    raise AssertionError(f"a thought is not in its own span: {text!r:.80}")


class _Messages:
    """The examples of a `messages` file, one of them at random each time."""

    def __init__(self, entry: MixRecipe, format: Format) -> None:
        self.examples: list[tuple[Example, str, str]] = []
        for where, dialogue in read_dialogues(Path(entry.messages)):
            question = next((m.text for m in reversed(dialogue) if m.role is Role.USER), "")
            try:
                self.examples.extend((example, question, where) for example in to_examples(dialogue, format))
            except FormatError as error:
                raise DataError(f"{where}: {error}") from error
        if not self.examples:
            raise DataError(f"{entry.messages}: holds no dialogue")

    def draw(self, rng: Random) -> tuple[Example, str, str]:
        return rng.choice(self.examples)


def check_mix(mix: Sequence[MixRecipe]) -> None:
    """Raise now what drawing from the mix would raise later: unknown tasks, malformed files."""
    for entry in mix:
        if entry.task:
            teachable(entry.task)
        else:
            for _ in read_dialogues(Path(entry.messages)):
                pass


def teachable(spec: str) -> DemonstratedTask | DemonstratedEnvironment:
    """The task that `spec` names. `RecipeError` when it cannot demonstrate."""
    task = load_task(spec)
    if isinstance(task, DemonstratedEnvironment | DemonstratedTask):
        return task
    missing = "show" if isinstance(task, EnvironmentTask) else "demonstrate"
    raise RecipeError(f"sft.mix: task {spec!r} has no {missing}(problem, rng), so it cannot be taught")


def to_examples(dialogue: Sequence[Message], format: Format) -> list[Example]:
    """What a dialogue teaches: every assistant turn once, each after the very prompt it would be generated from.

    A turn whose thinking was folded is taught in all its contexts: up to each fold, in examples of their own.
    """
    folded = [
        Example(ids=context.ids, learned=list(context.assistant_mask()))
        for i, message in enumerate(dialogue)
        if any(map(is_state, message.parts))
        for context in format.contexts(dialogue[: i + 1])[:-1]
    ]
    return folded + _last_contexts(dialogue, format)


def _last_contexts(dialogue: Sequence[Message], format: Format) -> list[Example]:
    last_user = max((i for i, m in enumerate(dialogue) if m.role is Role.USER), default=0)
    if not any(m.reasoning for m in dialogue[:last_user]):
        return [_example(dialogue, 0, format)]
    cuts = [*[i for i, m in enumerate(dialogue) if m.role is Role.USER][1:], len(dialogue)]
    begins = [0, *cuts[:-1]]
    return [_example(dialogue[:end], begin, format) for begin, end in zip(begins, cuts, strict=True)]


def _example(dialogue: Sequence[Message], first: int, format: Format) -> Example:
    """One rendering, loss on what the assistant produces in messages `first` and later."""
    rendered = format.render(dialogue, policy=ReasoningPolicy.CURRENT_TURN, train=True)
    learned = [False] * len(rendered.ids)
    for span in rendered.spans:
        if span.sampled and span.message_index >= first:
            learned[span.begin : span.end] = [True] * (span.end - span.begin)
    return Example(ids=rendered.ids, learned=learned)


def read_dialogues(path: Path) -> Iterator[tuple[str, tuple[Message, ...]]]:
    """(place, dialogue) for each line: {"messages": [{"role", "content", …}, …]}. `DataError` names file and line.

    Messages are what `dialogue.interchange.from_dicts` reads: an assistant's may carry `reasoning_content` and OpenAI's
    `tool_calls`. Other keys of the line are the writer's own.
    """
    for where, record in read_records(path):
        messages = record.get("messages")
        if not isinstance(messages, list) or not messages:
            raise DataError(f'{where}: needs "messages", a list of messages; has {sorted(record)}')
        try:
            dialogue = from_dicts(messages)
        except FormatError as error:
            raise DataError(f"{where}: {error}") from error
        if dialogue[-1].role is not Role.ASSISTANT:
            raise DataError(f"{where}: the last message must be the assistant's; there is nothing to learn after it")
        yield where, dialogue


def question_number(question: str) -> int:
    """64 bits of a question, by which held-out evaluation recognises one that was trained on."""
    return int(question_hash(question), 16)
