"""render and parse are a pair: what one writes the other reads, in every format, for any text."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ponder.dialogue import (
    CONTROL_TOKENS,
    Format,
    Message,
    ParseStatus,
    Part,
    PonderFormat,
    Reasoning,
    ReasoningPolicy,
    Role,
    SpanKind,
    Start,
    Text,
    ToolCall,
    ToolResult,
    from_dicts,
    load_format,
    to_dicts,
    train_tokenizer,
)
from ponder.dialogue.messages import is_state, think_blocks
from ponder.tokenizer import Tokenizer

pytestmark = pytest.mark.property

FAMILIES = Path(__file__).parents[1] / "golden" / "families"
TOKENIZER = train_tokenizer(["12 apples and 34 pears.\n\nLet me think. Wait, no.\n" * 9], 384)
PONDER = PonderFormat(TOKENIZER)
QWEN = load_format(Tokenizer.load(FAMILIES / "qwen3"), "chatml")
R1 = load_format(Tokenizer.load(FAMILIES / "deepseek_r1"), "deepseek_r1")
LLAMA = load_format(Tokenizer.load(FAMILIES / "llama3"), "llama3")
FORMATS: dict[str, Format] = {"ponder": PONDER, "chatml": QWEN, "deepseek_r1": R1, "llama3": LLAMA}
TOKENIZERS = {"ponder": TOKENIZER} | {
    name: Tokenizer.load(FAMILIES / family)
    for name, family in (("chatml", "qwen3"), ("deepseek_r1", "deepseek_r1"), ("llama3", "llama3"))
}

SPELLED = st.sampled_from([*CONTROL_TOKENS[:21], "<|im_end|>", "<think>", "</think>", "<tool_call>", "<｜User｜>"])
TEXT = st.lists(st.one_of(st.text(max_size=8), SPELLED), max_size=4).map("".join)
WORD = TEXT.filter(bool)
JSON = st.recursive(st.none() | st.integers() | TEXT, lambda inner: st.dictionaries(TEXT, inner, max_size=2))


def plain(message: Message) -> Message:
    """Without ids, with neighbouring texts joined and empty ones gone: what two equal messages have in common."""
    parts: list[Part] = []
    for part in message.parts:
        bare = part if isinstance(part, ToolResult) else replace(part, ids=None)
        if isinstance(bare, Text) and parts and isinstance(parts[-1], Text):
            parts[-1] = Text(parts[-1].text + bare.text)
        elif bare != Text(""):
            parts.append(bare)
    return replace(message, parts=tuple(parts))


def calls(arguments: st.SearchStrategy[str]) -> st.SearchStrategy[Part]:
    return st.builds(ToolCall, WORD, arguments)


STATE = st.builds(Reasoning, TEXT, state=st.just(True))
ANY_PARTS = st.one_of(st.builds(Text, TEXT), st.builds(Reasoning, TEXT), calls(TEXT))


def assistant(part: st.SearchStrategy[Part]) -> st.SearchStrategy[Message]:
    return st.lists(part, max_size=5).map(lambda parts: Message(Role.ASSISTANT, tuple(parts)))


UNFOLDED, ASSISTANT = assistant(ANY_PARTS), assistant(ANY_PARTS | STATE)
NAMES = st.none() | WORD
USER = st.builds(Message.user, TEXT, NAMES)
TOOL = st.builds(lambda name, content: Message(Role.TOOL, (ToolResult(name, content),)), WORD, TEXT)
SYSTEM = st.builds(Message, st.sampled_from([Role.SYSTEM, Role.DEVELOPER]), TEXT.map(lambda t: (Text(t),)), NAMES)
CONVERSATION = st.builds(
    lambda head, rest: (*head, *rest), st.lists(SYSTEM, max_size=1), st.lists(USER | ASSISTANT | TOOL)
)


def start_of(format: Format, message: Message) -> Start:
    first = next((part for part in message.parts if part != Text("")), None)
    return Start.THINK if isinstance(first, Reasoning) else Start.DIRECT


@settings(deadline=None)
@given(message=UNFOLDED)
def test_parse_reads_what_render_wrote(message: Message) -> None:
    start = start_of(PONDER, message)
    prompt = PONDER.render([Message.user("q")], start=start).ids
    whole = PONDER.render([Message.user("q"), message], train=True)
    assert whole.ids[: len(prompt)] == prompt
    parsed = PONDER.parse_generated(whole.ids[len(prompt) :], start=start)
    assert parsed.status is ParseStatus.COMPLETE
    assert plain(parsed.message) == plain(message)
    assert PONDER.render([Message.user("q"), parsed.message]).ids == whole.ids


IDS = st.lists(st.integers(0, 266), max_size=4)
CONTROL = TOKENIZER.control


@st.composite
def folded_generations(draw: st.DrawFn) -> tuple[Start, list[list[int]]]:
    """The prompt, and what was sampled after it, cut after every fold."""
    start = draw(st.sampled_from([Start.THINK, Start.DIRECT]))
    pieces = [[] if start is Start.THINK else [*draw(IDS.filter(bool)), CONTROL["<|think|>"]]]
    for state in draw(st.lists(IDS, max_size=3)):
        pieces[-1] += [*draw(IDS), CONTROL["<|state|>"], *state, CONTROL["<|fold|>"]]
        pieces.append([])
    pieces[-1] += [*draw(IDS), CONTROL["<|/think|>"], *draw(IDS), CONTROL["<|end|>"]]
    return start, pieces


@settings(deadline=None)
@given(generation=folded_generations())
def test_a_folded_generation_renders_as_the_contexts_it_was_sampled_in(
    generation: tuple[Start, list[list[int]]],
) -> None:
    """Each context is the turn up to its open token, the last state, and what was sampled after that."""
    start, pieces = generation
    question = [Message.user("q")]
    prompt = PONDER.render(question, start=start).ids
    parsed = PONDER.parse_generated([id for piece in pieces for id in piece], start=start)
    assert parsed.status is ParseStatus.COMPLETE
    opened = 0 if start is Start.THINK else pieces[0].index(CONTROL["<|think|>"]) + 1
    expected = [(*prompt, *pieces[0])]
    for before, piece in pairwise(pieces):
        state = before[before.index(CONTROL["<|state|>"]) :]
        expected.append((*prompt, *pieces[0][:opened], *state, *piece))
    contexts = PONDER.contexts([*question, parsed.message])
    assert [context.ids for context in contexts] == expected
    for context, piece in zip(contexts, pieces, strict=True):
        mask = context.assistant_mask()
        assert mask == (False,) * (len(mask) - len(piece)) + (True,) * len(piece)
    whole = PONDER.render([*question, parsed.message], train=True)
    assert whole == contexts[-1]
    generated = sum(map(len, pieces))
    assert generated - sum(left.tokens for left in whole.folded_reasoning) == len(whole.ids) - len(prompt)


def last_states(message: Message) -> list[str]:
    """The text of the last state of each block that has one."""
    blocks = [message.parts[block.start : block.stop] for block in think_blocks(message.parts)]
    states = [[part.text for part in block if isinstance(part, Reasoning) and part.state] for block in blocks]
    return [texts[-1] for texts in states if texts]


BABBLE = st.one_of(TEXT.map(TOKENIZER.encode), IDS, st.sampled_from([*CONTROL.values()][-53:-32]).map(lambda id: [id]))
FOLDING = ("<|think|>", "<|/think|>", "<|state|>", "<|fold|>")


@settings(deadline=None)
@given(
    pieces=st.lists(BABBLE | st.sampled_from(FOLDING).map(lambda name: [CONTROL[name]]), max_size=12),
    start=st.sampled_from([Start.THINK, Start.DIRECT]),
)
def test_whatever_was_sampled_its_rendering_is_read_as_it_stands(pieces: list[list[int]], start: Start) -> None:
    """No text and no token without a place turns into a fold, a thought or a turn by being rendered again."""
    question = [Message.user("q")]
    prompt = PONDER.render(question, start=start).ids
    message = PONDER.parse([id for piece in pieces for id in piece], start=start)
    rendered = PONDER.render([*question, message])
    assert rendered.ids[: len(prompt)] == prompt
    again = PONDER.parse_generated(rendered.ids[len(prompt) :], start=start)
    assert again.status is ParseStatus.COMPLETE
    assert PONDER.render([*question, again.message]).ids == rendered.ids
    assert last_states(again.message) == last_states(message)


@settings(deadline=None)
@given(conversation=st.lists(ASSISTANT | USER, max_size=3), last=ASSISTANT)
def test_each_context_goes_on_where_the_last_fold_left_it(conversation: list[Message], last: Message) -> None:
    messages = [*conversation, last]
    contexts = PONDER.contexts(messages)
    states = [part for part in last.parts if is_state(part)]
    assert len(contexts) == len(states) + 1
    assert contexts[-1].ids == PONDER.render(messages, train=True).ids
    header = len(PONDER.render([*conversation, Message(Role.ASSISTANT, ())]).ids) - 1
    for context in contexts:
        learned = context.assistant_mask()
        assert not any(learned[:header])
        assert (context.ids[-1] == CONTROL["<|fold|>"]) == (context is not contexts[-1])
        first = learned.index(True)
        assert all(learned[first:])
        assert context is contexts[0] or context.ids[first - 1] == CONTROL["<|fold|>"]


NATIVE_TEXT = TEXT.map(lambda text: text.strip())


@pytest.mark.parametrize("name", ["chatml", "deepseek_r1", "llama3"])
@settings(deadline=None)
@given(
    reasoning=NATIVE_TEXT.filter(bool),
    text=NATIVE_TEXT,
    tools=st.lists(st.tuples(WORD, JSON), max_size=2),
)
def test_parse_reads_what_a_native_format_wrote(
    name: str, reasoning: str, text: str, tools: list[tuple[str, object]]
) -> None:

    format = FORMATS[name]
    parts: list[Part] = [] if name == "llama3" else [Reasoning(reasoning)]
    parts += [Text(text)] if text else []
    if name == "chatml":
        parts += [ToolCall(tool, json.dumps(arguments)) for tool, arguments in tools]
    message = Message(Role.ASSISTANT, tuple(parts))
    start = Start.DIRECT if name == "llama3" else Start.THINK
    prompt = format.render([Message.user("q")], start=start).ids
    whole = format.render([Message.user("q"), message], train=True)
    assert whole.ids[: len(prompt)] == prompt
    generated = tuple(id for id, own in zip(whole.ids, whole.assistant_mask(), strict=True) if own)
    assert whole.ids[len(prompt) : len(prompt) + len(generated)] == generated
    parsed = format.parse_generated(generated, start=start)
    assert parsed.status is ParseStatus.COMPLETE
    assert plain(parsed.message) == plain(message)
    assert format.render([Message.user("q"), parsed.message]).ids == whole.ids


@pytest.mark.parametrize("name", FORMATS)
@settings(deadline=None)
@given(data=st.data())
def test_any_ids_parse_and_what_was_sampled_is_rendered_again_without_a_control_token(
    name: str, data: st.DataObject
) -> None:
    format, tokenizer = FORMATS[name], TOKENIZERS[name]
    ids = data.draw(
        st.lists(st.one_of(st.integers(0, tokenizer.vocab_size), st.sampled_from([*tokenizer.control.values()])))
    )
    start = data.draw(st.sampled_from([Start.NONE, Start.DIRECT, *([] if name == "llama3" else [Start.THINK])]))
    parsed = format.parse_generated(ids, start=start)
    assert parsed.message.role is Role.ASSISTANT
    assert all(0 <= at < len(ids) for at in parsed.stray)
    assert (parsed.status is ParseStatus.STRAY_CONTROL) == bool(parsed.stray)
    for part in parsed.message.parts:
        if isinstance(part, Text | Reasoning) and part.ids is not None:
            assert not any(map(tokenizer.is_control, part.ids))


@settings(deadline=None)
@given(
    reasoning=st.lists(st.integers(0, 266)),
    answer=st.lists(st.integers(0, 266), min_size=1),
    arguments=st.lists(st.integers(0, 266)),
)
def test_sampled_ids_are_rendered_verbatim(reasoning: list[int], answer: list[int], arguments: list[int]) -> None:
    """Also where they are not what the tokenizer would have chosen, or no text at all."""
    ids = TOKENIZER.control
    call = [ids["<|call|>"], *TOKENIZER.encode("f"), ids["<|args|>"], *arguments, ids["<|/call|>"]]
    sampled = [*reasoning, ids["<|/think|>"], *answer, *call, ids["<|end|>"]]
    prompt = PONDER.render([Message.user("q")], start=Start.THINK).ids
    message = PONDER.parse(sampled, start=Start.THINK)
    assert PONDER.render([Message.user("q"), message]).ids == (*prompt, *sampled)


@pytest.mark.parametrize("format", [QWEN, R1], ids=lambda format: format.name)
@settings(deadline=None)
@given(thought=st.text(max_size=9), line=st.sampled_from(["", "\n", "\n\n"]), gap=st.sampled_from(["", "\n", "\n\n"]))
def test_sampled_line_breaks_around_a_think_block_stay_as_they_were_sampled(
    format: Format, thought: str, line: str, gap: str
) -> None:
    tokenizer = TOKENIZERS[format.name]
    close = format.phase_tokens.think_close
    assert close is not None
    reasoning = tokenizer.encode(thought + "." + line)
    sampled = [*reasoning, close, *tokenizer.encode(gap + "4."), format.phase_tokens.end[0]]
    prompt = format.render([Message.user("q")], start=Start.THINK).ids
    message = format.parse(sampled, start=Start.THINK)
    assert (message.reasoning, message.text) == ((thought + ".").strip("\n"), "4.")
    rendered = format.render([Message.user("q"), message]).ids
    assert rendered[: len(prompt) + len(sampled)] == (*prompt, *sampled)


@settings(deadline=None)
@given(conversation=CONVERSATION)
def test_spans_cover_every_id_and_hold_their_texts(conversation: tuple[Message, ...]) -> None:
    rendered = PONDER.render(conversation, policy=ReasoningPolicy.ALL_TURNS, start=Start.THINK)
    assert [span.begin for span in rendered.spans] == [0, *(span.end for span in rendered.spans)][:-1]
    assert rendered.spans[-1].end == len(rendered.ids)
    for span in rendered.spans:
        if span.kind in (SpanKind.TEXT, SpanKind.REASONING, SpanKind.STATE):
            assert span.part_index is not None
            part = conversation[span.message_index].parts[span.part_index]
            assert isinstance(part, Text | Reasoning)
            alone = TOKENIZER.decode(rendered.ids[span.begin : span.end])
            written = f"<|state|>{part.text}<|fold|>" if span.kind is SpanKind.STATE else part.text
            assert alone == written or "\ufffd" in alone or len(conversation[span.message_index].parts) > 1


@settings(deadline=None)
@given(conversation=CONVERSATION)
def test_both_policies_agree_where_there_is_no_old_reasoning(conversation: tuple[Message, ...]) -> None:
    current = PONDER.render(conversation)
    whole = PONDER.render(conversation, policy=ReasoningPolicy.ALL_TURNS)
    assert whole.dropped_reasoning == ()
    assert whole.folded_reasoning == current.folded_reasoning
    assert len(whole.ids) - len(current.ids) == sum(dropped.tokens for dropped in current.dropped_reasoning)
    if not current.dropped_reasoning:
        assert current == whole


@settings(deadline=None)
@given(conversation=CONVERSATION, more=st.lists(ASSISTANT | TOOL, min_size=1))
def test_within_a_turn_a_longer_rendering_begins_with_the_shorter(
    conversation: tuple[Message, ...], more: list[Message]
) -> None:
    shorter = PONDER.render(conversation).ids
    assert PONDER.render([*conversation, *more]).ids[: len(shorter)] == shorter


@settings(deadline=None)
@given(conversation=CONVERSATION)
def test_the_loss_falls_on_what_the_assistant_samples(conversation: tuple[Message, ...]) -> None:
    rendered = PONDER.render(conversation, policy=ReasoningPolicy.ALL_TURNS)
    mask = rendered.assistant_mask()
    assert len(mask) == len(rendered.ids)
    for span in rendered.spans:
        message = conversation[span.message_index] if span.message_index < len(conversation) else None
        own = message is not None and message.role is Role.ASSISTANT
        states = [number for number, part in enumerate(message.parts) if is_state(part)] if message else []
        earlier = span.part_index is not None and bool(states) and span.part_index <= states[-1]
        if span.kind is SpanKind.CLOSE:
            earlier = earlier and span.part_index != states[-1]
        if span.kind is not SpanKind.OPEN:
            assert span.sampled == (own and span.kind is not SpanKind.HEADER and not earlier)
        assert set(mask[span.begin : span.end]) == {span.sampled}


@settings(deadline=None)
@given(conversation=CONVERSATION)
def test_messages_survive_the_interchange_of_dictionaries(conversation: tuple[Message, ...]) -> None:
    def simple(message: Message) -> bool:
        """Reasoning, text, calls: the order that dictionaries have."""
        parts = message.parts if any(map(is_state, message.parts)) else plain(message).parts
        order = [(Reasoning, Text, ToolCall, ToolResult).index(type(part)) for part in parts]
        return order == sorted(order) and len(think_blocks(parts)) <= 1

    assume(all(map(simple, conversation)))
    assert [plain(message) for message in from_dicts(to_dicts(conversation))] == [plain(m) for m in conversation]
