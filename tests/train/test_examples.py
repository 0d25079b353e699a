"""What tuning teaches: the assistant's tokens, each turn after the very prompt it would be generated from."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from ponder.dialogue import Message, PonderFormat, Start, from_dicts, load_format
from ponder.dialogue.format import Rendered, Span, SpanKind
from ponder.dialogue.messages import Reasoning, Role, Text
from ponder.tasks.protocol import Demonstration, Fold, Grade, Problem, mistake
from ponder.testing.tiny import ByteTokenizer
from ponder.tokenizer import Tokenizer
from ponder.train.data.dialogues import read_dialogues
from ponder.train.data.packing import Example
from ponder.train.examples import Examples, _learned, mix_texts, question_number, to_examples
from ponder.train.recipe.sections import MixRecipe
from ponder.types import DataError, RecipeError

FAMILIES = Path(__file__).parents[1] / "golden" / "families"
TOKENIZER = ByteTokenizer()
FORMAT = PonderFormat(TOKENIZER)


def mix(*entries: MixRecipe, sequence: int = 4096) -> Examples:
    return Examples(entries, FORMAT, tokenizer=TOKENIZER, sequence=sequence)


def learned(example: Example) -> str:
    return TOKENIZER.decode([id for id, flag in zip(example.ids, example.learned, strict=True) if flag])


def given(example: Example) -> str:
    return TOKENIZER.decode([id for id, flag in zip(example.ids, example.learned, strict=True) if not flag])


def write(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def says(role: str, content: str, **more: str) -> dict[str, str]:
    return {"role": role, "content": content, **more}


def test_thinking_is_learned_behind_the_thinking_prompt() -> None:
    (example,) = to_examples([Message.user("1+1?"), Message.assistant("2", "one more than one")], FORMAT)
    prompt = FORMAT.render([Message.user("1+1?")], start=Start.THINK).ids
    assert example.ids[: len(prompt)] == prompt
    assert not any(example.learned[: len(prompt)])
    assert all(example.learned[len(prompt) :])
    assert learned(example) == "one more than one<|/think|>2<|end|>"


def test_a_direct_answer_is_learned_behind_the_direct_prompt() -> None:
    (example,) = to_examples([Message.user("1+1?"), Message.assistant("2")], FORMAT)
    prompt = FORMAT.render([Message.user("1+1?")], start=Start.DIRECT).ids
    assert example.ids[: len(prompt)] == prompt
    assert learned(example) == "2<|end|>"


CALLING = from_dicts(
    [
        says("user", "Rain?"),
        {"role": "assistant", "tool_calls": [{"function": {"name": "look", "arguments": "{}"}}]},
        says("tool", "yes", name="look"),
        says("assistant", "Yes."),
    ]
)
PLAIN = from_dicts([says("user", "a"), says("assistant", "b"), says("user", "c"), says("assistant", "d")])
THOUGHT = from_dicts(
    [says("user", "a"), says("assistant", "b", reasoning_content="x"), says("user", "c"), says("assistant", "d")]
)


@pytest.mark.parametrize(
    ("family", "dialogue"),
    [
        *[("qwen3", dialogue) for dialogue in (PLAIN, PLAIN[:2], THOUGHT, CALLING)],
        *[("deepseek_r1", dialogue) for dialogue in (PLAIN, PLAIN[:2], THOUGHT)],
        *[("llama3", dialogue) for dialogue in (PLAIN, PLAIN[:2])],
        *[("ponder", dialogue) for dialogue in (PLAIN, PLAIN[:2], THOUGHT, CALLING)],
    ],
)
def test_each_turn_is_learned_once_behind_a_prompt_that_sampling_asks(family: str, dialogue: Sequence[Message]) -> None:
    form = (
        FORMAT
        if family == "ponder"
        else load_format(Tokenizer.load(FAMILIES / family), family.replace("qwen3", "chatml"))
    )
    starts = (Start.DIRECT,) if family == "llama3" else (Start.DIRECT, Start.THINK)
    answers = [number for number, message in enumerate(dialogue) if message.role is Role.ASSISTANT]
    prompts = {form.render(dialogue[:number], start=start).ids: number for number in answers for start in starts}
    begun = []
    for example in to_examples(dialogue, form):
        flags = example.learned
        begun += [prompts[tuple(example.ids[:at])] for at in range(1, len(flags)) if flags[at] and not flags[at - 1]]
    assert sorted(begun) == answers


@pytest.mark.parametrize("family", ["chatml", "deepseek_r1"])
def test_a_direct_demonstration_is_learned_behind_the_direct_prompt_of_the_family(family: str) -> None:
    tokenizer = Tokenizer.load(FAMILIES / family.replace("chatml", "qwen3"))
    form = load_format(tokenizer, family)
    entry = MixRecipe(task="tests.train.test_examples:Slipping", direct=1.0)
    example, _ = Examples([entry], form, tokenizer=tokenizer, sequence=512).draw(Random(0))
    prompt = form.render([Message.user("2+2?")], start=Start.DIRECT).ids
    assert tuple(example.ids[: len(prompt)]) == prompt
    assert not any(example.learned[: len(prompt)])
    taught = tokenizer.decode([token for token, yes in zip(example.ids, example.learned, strict=True) if yes])
    assert taught.startswith("4<")


def test_turns_without_reasoning_are_learned_in_one_example() -> None:
    dialogue = [Message.user("a"), Message.assistant("b"), Message.user("c"), Message.assistant("d")]
    (example,) = to_examples(dialogue, FORMAT)
    assert learned(example) == "b<|end|>d<|end|>"


def test_reasoning_that_a_later_prompt_drops_makes_each_turn_its_own_example() -> None:
    first = [Message.system("s"), Message.user("a"), Message.assistant("b", "because")]
    first_example, second_example = to_examples([*first, Message.user("c"), Message.assistant("d", "hence")], FORMAT)
    assert learned(first_example) == "because<|/think|>b<|end|>"
    assert learned(second_example) == "hence<|/think|>d<|end|>"
    assert "because" not in given(second_example)
    assert "b<|end|>" in given(second_example)


def test_a_folded_turn_is_learned_in_each_of_its_contexts() -> None:
    folded = ["a", {"state": "b"}, "c", {"state": "d"}, "e"]
    dialogue = from_dicts(
        [
            {"role": "user", "content": "u"},
            {"role": "assistant", "content": "x", "reasoning_content": folded},
            {"role": "user", "content": "v"},
            {"role": "assistant", "content": "y", "reasoning_content": "f"},
        ]
    )
    *earlier, last = to_examples(dialogue, FORMAT)
    begin = "<|user|>u<|end|><|assistant|><|think|>"
    assert [(given(example), learned(example)) for example in earlier] == [
        (begin, "a<|state|>b<|fold|>"),
        (begin + "<|state|>b<|fold|>", "c<|state|>d<|fold|>"),
        (begin + "<|state|>d<|fold|>", "e<|/think|>x<|end|>"),
    ]
    assert learned(last) == "f<|/think|>y<|end|>"


def test_a_mix_draws_by_weight_and_direct_share_and_the_same_for_the_same_seed(tmp_path: Path) -> None:
    file = write(tmp_path / "m.jsonl", {"messages": [says("user", "hi"), says("assistant", "hello")]})
    examples = mix(
        MixRecipe(task="products", weight=3.0, direct=0.25, max_level=0.4),
        MixRecipe(messages=str(file), weight=1.0, direct=0.0),
    )
    drawn = [examples.draw(Random(seed))[0] for seed in range(400)]
    hello = sum(learned(example) == "hello<|end|>" for example in drawn)
    thinking = sum("<|/think|>" in learned(example) for example in drawn)
    assert 70 < hello < 130
    assert 190 < thinking < 260
    assert drawn == [examples.draw(Random(seed))[0] for seed in range(400)]


def test_levels_stay_in_the_range_asked_for() -> None:
    examples = mix(MixRecipe(task="products", max_level=0.1, direct=1.0))
    answers = [learned(examples.draw(Random(seed))[0]).removesuffix("<|end|>") for seed in range(60)]
    assert max(map(len, answers)) <= 2


def test_an_earlier_turn_is_context_only() -> None:
    examples = mix(MixRecipe(task="products", earlier=1.0, direct=0.0, max_level=0.4))
    example, _ = examples.draw(Random(0))
    assert given(example).count("<|user|>") == 2
    assert learned(example).count("<|end|>") == 1


def test_an_earlier_turn_that_does_not_fit_the_row_is_left_out() -> None:
    entry = MixRecipe(task="products", earlier=1.0, direct=0.0, min_level=0.4, max_level=0.4)
    alone = mix(replace(entry, earlier=0.0)).draw(Random(0))[0]
    example, _ = mix(entry, sequence=len(alone.ids)).draw(Random(0))
    assert example == alone


def test_a_share_of_a_family_is_asked_in_plain_words() -> None:
    def plain(share: float) -> int:
        examples = mix(MixRecipe(task="mini_sudoku", plain=share))
        return sum("- Each row must" not in given(examples.draw(Random(seed))[0]) for seed in range(40))

    assert plain(0.0) == 0
    assert 10 < plain(0.5) < 30
    assert plain(1.0) == 40


def test_an_example_longer_than_a_row_names_its_source_and_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"task products at level .* does not fit sft.sequence = 16"):
        mix(MixRecipe(task="products", direct=0.0), sequence=16).draw(Random(0))
    file = write(tmp_path / "m.jsonl", {"messages": [says("user", "hi"), says("assistant", "x" * 40)]})
    with pytest.raises(DataError, match=r"m\.jsonl:1: an example of 4\d tokens"):
        mix(MixRecipe(messages=str(file)), sequence=16).draw(Random(0))


def test_a_task_without_demonstrations_cannot_be_taught(tmp_path: Path) -> None:
    code = tmp_path / "mine.py"
    code.write_text(
        "class Mine:\n    name = 'mine'\n    def sample(self, rng, level): ...\n"
        "    def grade(self, problem, answer): ...\n    def same(self, a, b): ...\n"
    )
    with pytest.raises(RecipeError, match="has no demonstrate"):
        mix(MixRecipe(task=f"{code}:Mine"))


GOOD = {"messages": [says("user", "hi"), says("assistant", "hello")]}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "not valid JSON"),
        ({"prompt": "hi"}, r"no dialogue that is known \(it has 'prompt'\): write \"messages\""),
        ({"messages": []}, '"messages" must be a list of messages, and not empty'),
        ({"messages": ["hi"]}, "message 0: must be an object"),
        ({"messages": [says("robot", "hi")]}, "unknown role 'robot'"),
        ({"messages": [says("user", "hi")]}, "last message must be the assistant's"),
        ({"messages": [says("user", "hi", mood="good"), says("assistant", "x")]}, "unknown key 'mood'"),
        ({"messages": [{"role": "user", "content": 3}, says("assistant", "x")]}, "'content' must be a string"),
    ],
)
def test_a_malformed_line_is_reported_by_file_and_line(tmp_path: Path, line: object, why: str) -> None:
    file = write(tmp_path / "m.jsonl", GOOD, line)
    with pytest.raises(DataError, match=rf"m\.jsonl:2: .*{why}"):
        mix(MixRecipe(messages=str(file)))


def test_a_file_without_a_dialogue_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no dialogue"):
        mix(MixRecipe(messages=str(write(tmp_path / "m.jsonl", ""))))


def test_reasoning_content_and_tool_calls_are_read(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    messages: Sequence[object] = [
        says("user", "hi"),
        {"role": "assistant", "content": None, "reasoning_content": "ask", "tool_calls": [call]},
        says("tool", "2", name="add"),
        says("assistant", "two"),
    ]
    ((_, dialogue),) = read_dialogues(write(tmp_path / "m.jsonl", {"messages": messages}))
    (example,) = to_examples(dialogue.messages, FORMAT)
    assert "ask<|/think|>" in learned(example)
    assert learned(example).endswith("two<|end|>")
    assert "add" in learned(example)
    assert "<|result|>" in given(example)


def test_questions_are_known_by_a_number_of_64_bits() -> None:
    assert question_number("What is 2 x 3?") == question_number(" What is  2 x 3? ")
    assert 0 <= question_number("a") < 2**64


class Folding:
    """A task whose thought is folded once, with a mistake before the fold and one in the state."""

    name = "folding"

    def sample(self, rng: Random, level: float) -> Problem:
        return Problem(task=self.name, question="2+2?", answer="4")

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        fold = Fold(f"2+2={mistake('5')} no 4", f"so {mistake('far')}")
        return Demonstration(reasoning="done", answer="4", folds=(fold,))

    def grade(self, problem: Problem, answer: str) -> Grade:
        return Grade(score=float(answer == "4"))

    def same(self, a: str, b: str) -> bool:
        return a == b


def test_one_context_of_a_folded_thought_is_drawn_and_its_mistakes_are_shown_but_not_learned() -> None:
    examples = mix(MixRecipe(task="tests.train.test_examples:Folding", direct=0.0))
    drawn = {
        learned(example): TOKENIZER.decode(example.ids) for example, _ in map(examples.draw, map(Random, range(20)))
    }
    prompt = "<|user|>2+2?<|end|><|assistant|><|think|>"
    assert drawn == {
        "2+2= no 4<|state|>so <|fold|>": f"{prompt}2+2=5 no 4<|state|>so far<|fold|>",
        "done<|/think|>4<|end|>": f"{prompt}<|state|>so far<|fold|>done<|/think|>4<|end|>",
    }


class Slipping(Folding):
    """A task whose thought holds a mistake, and is not folded."""

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        return Demonstration(reasoning=f"2+2={mistake('5')}, no: 4", answer="4")


def test_mistakes_are_found_where_a_format_writes_line_breaks_around_a_thought() -> None:
    tokenizer = Tokenizer.load(FAMILIES / "qwen3")
    entry = MixRecipe(task="tests.train.test_examples:Slipping", direct=0.0)
    examples = Examples([entry], load_format(tokenizer), tokenizer=tokenizer, sequence=512)
    example, _ = examples.draw(Random(0))
    assert "<think>\n2+2=5, no: 4\n</think>" in tokenizer.decode(example.ids)
    taught = tokenizer.decode([token for token, yes in zip(example.ids, example.learned, strict=True) if yes])
    assert taught == "2+2=, no: 4\n</think>\n\n4<|im_end|>"


def test_what_a_format_writes_before_a_mistaken_thought_takes_nothing_from_the_answer() -> None:
    """Some formats sample control tokens and a line break before the thought, in the same span."""
    thought, lead, answer = TOKENIZER.encode("2+2=5"), TOKENIZER.encode("ooo"), TOKENIZER.encode("4")
    ids = (*lead, *thought, *answer)
    spans = (
        Span(0, len(lead) + len(thought), 1, 0, SpanKind.REASONING, True),
        Span(len(ids) - 1, len(ids), 1, 1, SpanKind.TEXT, True),
    )
    said = Message(Role.ASSISTANT, (Reasoning(f"2+2={mistake('5')}"), Text("4")))
    flags = _learned(Rendered(ids, spans), [Message.user("2+2?"), said], 1, TOKENIZER)
    assert flags == [True] * 7 + [False, True]


def test_a_mix_gives_texts_by_its_weights_the_same_each_time(tmp_path: Path) -> None:
    file = write(tmp_path / "talk.jsonl", {"messages": [says("user", "1+1?"), says("assistant", "two")]})
    entries = [MixRecipe(task="gcd", weight=3.0, plain=0.5), MixRecipe(messages=str(file), weight=1.0)]
    texts = list(mix_texts(entries, 200, seed=3))
    assert texts == list(mix_texts(entries, 200, seed=3))
    assert texts != list(mix_texts(entries, 200, seed=4))
    talks = [text for text in texts if text == "1+1?\ntwo"]
    assert 25 < len(talks) < 75
    worded = [text.startswith("Find the Greatest Common Divisor") for text in texts if text not in talks]
    assert 0.3 < sum(worded) / len(worded) < 0.7


def test_a_mix_takes_its_texts_from_its_levels() -> None:
    easy, hard = (MixRecipe(task="products", min_level=level, max_level=level) for level in (0.0, 1.0))
    longest = max(map(len, mix_texts([easy], 20, seed=0)))
    assert longest < min(map(len, mix_texts([hard], 20, seed=0)))


def test_a_mix_gives_the_turns_of_an_environment() -> None:
    (text,) = mix_texts([MixRecipe(task="recipes/smoke/hidden_number.py:HiddenNumber")], 1, seed=0)
    assert len(text.splitlines()) > 2


def test_no_texts_are_drawn_where_none_are_asked_for() -> None:
    assert list(mix_texts([MixRecipe(task="unknown_task")], 0, seed=0)) == []
