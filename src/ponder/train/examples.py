"""Dialogues for chain-of-thought tuning: demonstrations of tasks, and files of dialogues (`data.dialogues`).

A conversation becomes one or more examples (`data.contexts`), loss on the assistant's tokens only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from ponder.dialogue.format import Format, Rendered, SpanKind
from ponder.dialogue.messages import Message, Part, Reasoning, Role, Text
from ponder.dialogue.tools import Tool
from ponder.tasks.families.plain.task import WORDED, Plain
from ponder.tasks.gym import question_hash
from ponder.tasks.protocol import (
    CouncilTask,
    DemonstratedEnvironment,
    DemonstratedTask,
    Demonstration,
    EnvironmentTask,
    Problem,
    find_mistakes,
    without_marks,
)
from ponder.tasks.registry import load_task, task_files
from ponder.tokenizer import Tokenizer
from ponder.train.data.contexts import after_prompt, example_of, learned_contexts
from ponder.train.data.dialogues import read_dialogues
from ponder.train.data.packing import Example
from ponder.train.data.records import RECORD_SUFFIXES, files_of
from ponder.train.data.sources import demonstrated, written
from ponder.train.recipe.sections import MixRecipe
from ponder.types import DataError, FormatError, RecipeError


class Examples:
    """The mix of an SFT stage: `draw(rng)` gives the next example, the same for the same state of `rng`."""

    def __init__(self, mix: Sequence[MixRecipe], format: Format, *, tokenizer: Tokenizer, sequence: int) -> None:
        self.format = format
        self.sequence = sequence
        self.sources = [_source(entry, format, tokenizer, sequence) for entry in mix]
        self.weights = [entry.weight for entry in mix]

    def draw(self, rng: Random) -> tuple[Example, int]:
        """(example, hash of its question; 0 where there is none). `DataError` if it is longer than a row."""
        (source,) = rng.choices(self.sources, self.weights)
        example, question, where = source.draw(rng)
        check_length(example, where, self.sequence)
        return example, question_number(question) if question else 0


def _source(entry: MixRecipe, format: Format, tokenizer: Tokenizer, sequence: int) -> _Task | _Environment | _Messages:
    if not entry.task:
        return _Messages(entry, format, sequence)
    task = teachable(entry.task)
    if isinstance(task, DemonstratedEnvironment):
        return _Environment(task, entry, format, tokenizer)
    return _Task(task, entry, format, tokenizer, sequence)


class _Task:
    """Demonstrations, thinking or direct, at levels drawn evenly; of a family a share in plain words."""

    def __init__(
        self, task: DemonstratedTask, entry: MixRecipe, format: Format, tokenizer: Tokenizer, sequence: int
    ) -> None:
        self.entry, self.format, self.tokenizer, self.sequence = entry, format, tokenizer, sequence
        self.task = task
        self.plain = _plain(entry)

    def draw(self, rng: Random) -> tuple[Example, str, str]:
        level = rng.uniform(self.entry.min_level, self.entry.max_level)
        task = _wording(self.task, self.plain, self.entry, rng)
        problem = task.sample(rng, level)
        thinking = rng.random() >= (self.entry.direct or 0.0)
        demonstration = demonstrated(task, problem, rng, voices=self.entry.voices)
        number = _draw_context(rng, len(demonstration.folds)) if thinking else 0
        parts = self._thinking(demonstration, number) if thinking else ()
        dialogue = [Message.user(problem.question), self._answer(demonstration, parts)]
        context = self._rendered(dialogue, number, thinking=thinking)
        if rng.random() < self.entry.earlier:
            before = task.sample(rng, level)
            answer = self._answer(task.demonstrate(before, rng), ())
            longer = [Message.user(before.question), answer, *dialogue]
            rendered = self._rendered(longer, number, thinking=thinking)
            if len(rendered.ids) <= self.sequence + 1:  # two long problems in one row would be an error: only the last
                dialogue, context = longer, rendered
        learned = _learned(context, dialogue, len(dialogue) - 1, self.tokenizer)
        return (
            example_of(context, learned, self.format),
            problem.question,
            f"task {self.entry.task} at level {level:.2f}",
        )

    def _rendered(self, dialogue: list[Message], number: int, *, thinking: bool) -> Rendered:
        """The dialogue in context `number` of its last turn, after the prompt that it would be sampled after."""
        shown = list(map(_without_marks, dialogue))
        context = self.format.contexts(shown)[min(number, 1)]  # the first of those that a state opens
        return context if thinking else after_prompt(context, shown, len(shown) - 1, self.format)

    def _thinking(self, demonstration: Demonstration, number: int) -> tuple[Part, ...]:
        """Context `number` of the thinking, or all of it where several voices think, a character a token."""
        if not demonstration.voices:
            return _context(demonstration, number)
        voices = [
            replace(voice, ids=tuple(id for letter in voice.text for id in self.tokenizer.encode(letter)))
            for voice in demonstration.voices
        ]
        return (Reasoning(demonstration.opening), Reasoning.council(voices), Reasoning(demonstration.reasoning))

    def _answer(self, demonstration: Demonstration, thinking: tuple[Part, ...]) -> Message:
        """The assistant's turn. An answer in pieces is encoded piece by piece."""
        ids = [token for piece in demonstration.pieces for token in self.tokenizer.encode(piece)]
        return Message(Role.ASSISTANT, (*thinking, Text(demonstration.answer, tuple(ids) or None)))


def _plain(entry: MixRecipe) -> Plain | None:
    return Plain(entry.task) if entry.plain and entry.task in WORDED else None


def _wording(task: DemonstratedTask, plain: Plain | None, entry: MixRecipe, rng: Random) -> DemonstratedTask:
    """The task in one of its two wordings, by the share that the mix gives to plain words."""
    return plain if plain is not None and rng.random() < (entry.plain or 0.0) else task


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
        taught = [number for number in _answers(dialogue) if number >= first]
        contexts = learned_contexts(list(map(_without_marks, dialogue)), self.format, taught)
        context = contexts[_draw_context(rng, len(contexts) - 1)]
        learned = _learned(context, dialogue, first, self.tokenizer)
        return (
            example_of(context, learned, self.format),
            problem.question,
            f"task {self.entry.task} at level {level:.2f}",
        )

    def _dialogue(self, problem: Problem, rng: Random, *, thinking: bool) -> list[Message]:
        shown = self.task.show(problem, rng)
        return [Message.user(problem.question), *(shown if thinking else map(_without_reasoning, shown))]


def _answers(dialogue: Sequence[Message]) -> list[int]:
    """The numbers of the assistant's messages."""
    return [number for number, message in enumerate(dialogue) if message.role is Role.ASSISTANT]


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
    for spelled in (text, text.strip("\n") + "\n"):
        encoded, begins = tokenizer.encode_with_offsets(spelled)
        for first in range(len(ids) - len(encoded), -1, -1):
            if list(ids[first : first + len(encoded)]) == encoded:
                shift = len(text) - len(text.lstrip("\n")) if spelled != text else 0
                ends = [*begins[1:], len(spelled)]
                return first, [begin + shift for begin in begins], [end + shift for end in ends]
    raise AssertionError(f"a thought is not in its own span: {text!r:.80}")


class _Messages:
    """The examples of a file of dialogues, one of them at random each time."""

    def __init__(self, entry: MixRecipe, format: Format, sequence: int) -> None:
        self.examples: list[tuple[Example, str, str]] = []
        for where, dialogue in read_dialogues(Path(entry.messages)):
            question = next((m.text for m in reversed(dialogue.messages) if m.role is Role.USER), "")
            try:
                examples = to_examples(dialogue.messages, format, tools=dialogue.tools, taught=dialogue.taught)
            except FormatError as error:
                raise DataError(f"{where}: {error}") from error
            for example in examples:
                check_length(example, where, sequence)
                self.examples.append((example, question, where))
        if not self.examples:
            raise DataError(f"{entry.messages}: holds no dialogue: add one, or drop the line from the mix")

    def draw(self, rng: Random) -> tuple[Example, str, str]:
        return rng.choice(self.examples)


def mix_texts(mix: Sequence[MixRecipe], samples: int, *, seed: int) -> Iterator[str]:
    """What a mix teaches, as raw text: `samples` of its problems and dialogues, drawn by its weights."""
    sources = [_texts(entry) for entry in mix] if samples else []
    for index in range(samples):
        rng = Random(f"text/{seed}/mix/{index}")
        (draw,) = rng.choices(sources, [entry.weight for entry in mix])
        yield draw(rng)


def _texts(entry: MixRecipe) -> Callable[[Random], str]:
    """Draws texts of one entry of a mix."""
    if not entry.task:
        dialogues = [dialogue for _, dialogue in read_dialogues(Path(entry.messages))]
        return lambda rng: "\n".join(_texts_of(rng.choice(dialogues).messages))
    task, plain = teachable(entry.task), _plain(entry)

    def draw(rng: Random) -> str:
        level = rng.uniform(entry.min_level, entry.max_level)
        if isinstance(task, DemonstratedEnvironment):
            problem = task.sample(rng, level)
            return "\n".join([problem.question, *_texts_of(task.show(problem, rng))])
        worded = _wording(task, plain, entry, rng)
        return written(worded, worded.sample(rng, level), rng, voices=entry.voices)

    return draw


def _texts_of(messages: Sequence[Message]) -> list[str]:
    parts = (part for message in map(_without_marks, messages) for part in message.parts)
    return [part.text for part in parts if isinstance(part, Text | Reasoning)]


def check_length(example: Example, where: str, sequence: int) -> None:
    """Raises DataError, which names the place, for an example that is longer than a row."""
    if len(example.ids) > sequence + 1:
        raise DataError(
            f"{where}: an example of {len(example.ids)} tokens does not fit sft.sequence = {sequence}: "
            "raise sft.sequence, lower max_level, or drop the line"
        )


def check_mix(mix: Sequence[MixRecipe]) -> None:
    """Raise now what drawing from the mix would raise later: unknown tasks, malformed files."""
    for entry in mix:
        if entry.task:
            _check_voices(teachable(entry.task), entry)
        else:
            for _ in read_dialogues(Path(entry.messages)):
                pass


def mix_voices(mix: Sequence[MixRecipe]) -> int:
    """The most voices of a council that the mix teaches; 0: it teaches none."""
    found = [entry.voices for entry in mix if entry.voices > 1]
    files = [Path(entry.messages) for entry in mix if entry.messages]
    dialogues = (dialogue for file in files for _, dialogue in read_dialogues(file))
    parts = (part for each in dialogues for at in each.taught for part in each.messages[at].parts)
    return max([*found, *(len(part.voices) for part in parts if isinstance(part, Reasoning))], default=0)


def mix_files(mix: Sequence[MixRecipe]) -> dict[str, list[Path]]:
    """As `Section.data_files`, of a mix."""
    found: dict[str, list[Path]] = {}
    for entry in mix:
        if entry.task:
            found |= task_files(entry.task)
        else:
            found |= {str(file): [file] for file in files_of(Path(entry.messages), RECORD_SUFFIXES)}
    return found


def _check_voices(task: object, entry: MixRecipe) -> None:
    """Raises RecipeError for a task whose problems several voices cannot share."""
    if entry.voices and not isinstance(task, CouncilTask):
        raise RecipeError(
            f"sft.mix: task {entry.task!r} cannot be shared among voices, because it has no demonstrate_council("
            "problem, rng, voices): add that method, or leave voices out"
        )


def teachable(spec: str) -> DemonstratedTask | DemonstratedEnvironment:
    """The task that `spec` names. `RecipeError` when it cannot demonstrate."""
    task = load_task(spec)
    if isinstance(task, DemonstratedEnvironment | DemonstratedTask):
        return task
    missing = "show" if isinstance(task, EnvironmentTask) else "demonstrate"
    raise RecipeError(
        f"sft.mix: task {spec!r} cannot be taught, because it has no {missing}(problem, rng): add that "
        "method, or drop the task"
    )


def to_examples(
    messages: Sequence[Message], format: Format, *, tools: Sequence[Tool] = (), taught: Collection[int] | None = None
) -> list[Example]:
    """What a dialogue teaches: each of its assistant's messages once, after the very prompt it would be sampled after.

    taught: the numbers of the messages that are learned; None: all of the assistant's.
    """
    contexts = learned_contexts(messages, format, _answers(messages) if taught is None else taught, tools)
    return [example_of(context, context.assistant_mask(), format) for context in contexts]


def question_number(question: str) -> int:
    """64 bits of a question, by which held-out evaluation recognises one that was trained on."""
    return int(question_hash(question), 16)
