"""How a generation ended is a named case, whatever was sampled."""

from pathlib import Path

import pytest

from ponder.dialogue import (
    Message,
    Parsed,
    ParseStatus,
    PonderFormat,
    Reasoning,
    Role,
    Start,
    Text,
    ToolCall,
    load_format,
    train_tokenizer,
)
from ponder.dialogue.messages import is_state
from ponder.testing.tiny import ByteTokenizer
from ponder.tokenizer import Tokenizer

FAMILIES = Path(__file__).parents[1] / "golden" / "families"
TOKENIZER = train_tokenizer([], 320)
FORMAT = PonderFormat(TOKENIZER)


def parse(spelled: str, start: Start = Start.THINK) -> Parsed:
    """Parse ids written as text in which control tokens are control tokens."""
    ids: list[int] = []
    for id, piece in TOKENIZER.split_control(spelled):
        ids += TOKENIZER.encode(piece) if id is None else [id]
    return FORMAT.parse_generated(ids, start=start)


def shape(parsed: Parsed) -> list[tuple[str, ...]]:
    return [
        (type(part).__name__, part.name, part.arguments)
        if isinstance(part, ToolCall)
        else ("State" if is_state(part) else type(part).__name__, part.text)
        for part in parsed.message.parts
        if isinstance(part, Text | Reasoning | ToolCall)
    ]


@pytest.mark.parametrize(
    ("spelled", "start", "status", "parts"),
    [
        ("hm<|/think|>4<|end|>", Start.THINK, ParseStatus.COMPLETE, [("Reasoning", "hm"), ("Text", "4")]),
        ("<|/think|>4<|end|>", Start.THINK, ParseStatus.COMPLETE, [("Reasoning", ""), ("Text", "4")]),
        ("4<|end|>", Start.DIRECT, ParseStatus.COMPLETE, [("Text", "4")]),
        ("4<|endoftext|>", Start.DIRECT, ParseStatus.COMPLETE, [("Text", "4")]),
        ("<|end|>", Start.DIRECT, ParseStatus.COMPLETE, []),
        ("<|think|>hm<|/think|>4<|end|>", Start.DIRECT, ParseStatus.COMPLETE, [("Reasoning", "hm"), ("Text", "4")]),
        ("<|call|>f<|args|>{}<|/call|><|end|>", Start.DIRECT, ParseStatus.COMPLETE, [("ToolCall", "f", "{}")]),
        ("4", Start.DIRECT, ParseStatus.NO_END, [("Text", "4")]),
        ("", Start.DIRECT, ParseStatus.NO_END, []),
        ("hm<|/think|>4", Start.THINK, ParseStatus.NO_END, [("Reasoning", "hm"), ("Text", "4")]),
        ("hm", Start.THINK, ParseStatus.OPEN_THINK, [("Reasoning", "hm")]),
        ("", Start.THINK, ParseStatus.OPEN_THINK, [("Reasoning", "")]),
        ("hm<|end|>", Start.THINK, ParseStatus.OPEN_THINK, [("Reasoning", "hm")]),
        ("a<|call|>f<|args|>{", Start.DIRECT, ParseStatus.OPEN_CALL, [("Text", "a"), ("Text", "<|call|>f<|args|>{")]),
        ("<|call|>f<|end|>", Start.DIRECT, ParseStatus.OPEN_CALL, [("Text", "<|call|>f")]),
    ],
)
def test_each_ending_has_its_case(
    spelled: str, start: Start, status: ParseStatus, parts: list[tuple[str, ...]]
) -> None:
    parsed = parse(spelled, start)
    assert (parsed.status, shape(parsed), parsed.stray) == (status, parts, ())


@pytest.mark.parametrize(
    ("spelled", "start", "stray", "parts"),
    [
        ("a<|user|>b<|end|>", Start.DIRECT, (1,), [("Text", "a<|user|>b")]),
        ("a<|/think|>b<|end|>", Start.DIRECT, (1,), [("Text", "a<|/think|>b")]),
        ("a<|think|>b<|/think|>c<|end|>", Start.THINK, (1,), [("Reasoning", "a<|think|>b"), ("Text", "c")]),
        ("<|call|>f<|/call|><|end|>", Start.DIRECT, (0, 2), [("Text", "<|call|>f<|/call|>")]),
        ("<|call|><|args|>{}<|/call|>", Start.DIRECT, (0, 4), [("Text", "<|call|><|args|>{}<|/call|>")]),
        ("<|call|>f<|args|><|args|><|/call|>", Start.DIRECT, (0, 4), [("Text", "<|call|>f<|args|><|args|><|/call|>")]),
        ("a<|end|>b<|user|>", Start.DIRECT, (2, 3), [("Text", "a"), ("Text", "b<|user|>")]),
        ("<|state|>s<|fold|>", Start.DIRECT, (0, 2), [("Text", "<|state|>s<|fold|>")]),
        ("a<|fold|>b<|/think|>", Start.THINK, (1,), [("Reasoning", "a<|fold|>b")]),
        ("a<|state|>b<|/think|>c", Start.THINK, (1,), [("Reasoning", "a<|state|>b"), ("Text", "c")]),
        (
            "a<|state|>b<|state|>c<|fold|>d<|/think|>",
            Start.THINK,
            (3,),
            [("Reasoning", "a"), ("State", "b<|state|>c"), ("Reasoning", "d")],
        ),
        (
            "a<|state|>b<|user|>c<|/think|>",
            Start.THINK,
            (1, 3),
            [("Reasoning", "a<|state|>b<|user|>c")],
        ),
        ("<|reserved_31|><|/call|>", Start.DIRECT, (0, 1), [("Text", "<|reserved_31|><|/call|>")]),
    ],
)
def test_a_control_token_without_a_place_stays_as_spelled_text(
    spelled: str, start: Start, stray: tuple[int, ...], parts: list[tuple[str, ...]]
) -> None:
    parsed = parse(spelled, start)
    assert parsed.status is ParseStatus.STRAY_CONTROL
    assert parsed.stray == stray
    assert shape(parsed) == parts


@pytest.mark.parametrize(
    ("spelled", "status", "parts"),
    [
        ("a<|state|>s<|fold|>b<|/think|>c<|end|>", ParseStatus.COMPLETE, ["a", "S:s", "b", "c"]),
        ("<|state|><|fold|><|/think|><|end|>", ParseStatus.COMPLETE, ["", "S:", ""]),
        ("<|state|>s<|fold|><|state|>r<|fold|>b<|/think|>c", ParseStatus.NO_END, ["", "S:s", "", "S:r", "b", "c"]),
        ("a<|state|>s<|fold|>b", ParseStatus.OPEN_THINK, ["a", "S:s", "b"]),
        ("a<|state|>s<|fold|>b<|state|>r<|end|>", ParseStatus.OPEN_THINK, ["a", "S:s", "b<|state|>r"]),
        ("a<|state|>", ParseStatus.OPEN_THINK, ["a<|state|>"]),
    ],
)
def test_a_folded_block_alternates_thoughts_and_states(spelled: str, status: ParseStatus, parts: list[str]) -> None:
    """A state that is cut is none: its opening stays in the thought as spelled text, and nothing is folded by it."""
    parsed = parse(spelled)
    texts = [("S:" if is_state(part) else "") + getattr(part, "text", "") for part in parsed.message.parts]
    assert (parsed.status, texts, parsed.stray) == (status, parts, ())


def test_parts_carry_the_ids_they_were_sampled_as() -> None:
    parsed = parse("hm<|/think|>4<|end|>")
    assert parsed.message.parts == (
        Reasoning("hm", tuple(TOKENIZER.encode("hm"))),
        Text("4", tuple(TOKENIZER.encode("4"))),
    )


def test_parse_is_the_message_of_parse_generated() -> None:
    ids = [*TOKENIZER.encode("4"), TOKENIZER.control_id("<|end|>")]
    assert FORMAT.parse(ids, start=Start.DIRECT) == FORMAT.parse_generated(ids, start=Start.DIRECT).message


def test_ids_that_do_not_spell_the_text_are_another_tokenizers_and_not_used() -> None:
    edited = Message(Role.ASSISTANT, (Text("5", tuple(TOKENIZER.encode("4"))),))
    assert FORMAT.render([edited]) == FORMAT.render([Message.assistant("5")])


def test_ids_that_cut_a_character_are_kept() -> None:
    half = TOKENIZER.encode("ü")[:1]
    message = FORMAT.parse([*half, TOKENIZER.control_id("<|end|>")], start=Start.DIRECT)
    assert message.text == "\ufffd"
    assert FORMAT.render([message]).ids[1:-1] == tuple(half)


@pytest.mark.parametrize("family", ["qwen3", "deepseek_r1"])
def test_the_lead_of_an_answer_is_the_formats_and_no_part_of_its_text(family: str) -> None:
    tokenizer = Tokenizer.load(FAMILIES / family)
    format = load_format(tokenizer)
    tokens = format.phase_tokens
    assert tokens.lead == tuple(tokenizer.encode("\n\n")) != ()
    answer = tokenizer.encode('{"x": 1}')
    said = [*tokenizer.encode("Hm.\n"), tokens.think_close, *tokens.lead, *answer, tokens.end[0]]
    parsed = format.parse_generated(said, start=Start.THINK)
    assert parsed.status is ParseStatus.COMPLETE
    assert parsed.message.text == '{"x": 1}'
    assert parsed.message.reasoning == "Hm."
    question = Message.user("q")
    prompt = format.render((question,), start=Start.THINK).ids
    assert format.render((question, parsed.message)).ids[: len(prompt) + len(said)] == (*prompt, *said)


@pytest.mark.parametrize("name", ["ponder", "llama3"])
def test_formats_that_write_nothing_before_an_answer_have_no_lead(name: str) -> None:
    tokenizer = ByteTokenizer() if name == "ponder" else Tokenizer.load(FAMILIES / name)
    assert load_format(tokenizer).phase_tokens.lead == ()
