"""Formats against transformers' `apply_chat_template` on generated conversations: the same ids."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.dialogue import (
    PonderFormat,
    ReasoningPolicy,
    Start,
    from_dicts,
    load_format,
    tools_from_dicts,
    train_tokenizer,
)
from ponder.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.parity
FAMILIES = Path(__file__).parents[1] / "golden" / "families"
FORMATS = {"qwen3": "chatml", "llama3": "llama3", "deepseek_r1": "deepseek_r1"}
THEIRS = {family: transformers.AutoTokenizer.from_pretrained(FAMILIES / family) for family in FORMATS}
OURS = {family: load_format(Tokenizer.load(FAMILIES / family), name) for family, name in FORMATS.items()}

WORDS = [
    "The answer",
    " is 42",
    ".",
    "\n",
    "\n\n",
    "  ",
    "x=1",
    "ü",
    "你好",
    "it's",
    "```py\n",
    "- ",
    "{",
    "\t",
    "\U0001f600",
]
TEXT = st.lists(st.sampled_from(WORDS) | st.text("abc 12.\n", max_size=5), max_size=6).map("".join)
VISIBLE = TEXT.filter(str.strip)
REASONING = VISIBLE.filter(lambda text: text.strip("\n")[0] not in " \t")  # the prompt's line break ends a token


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)


@st.composite
def declarations(draw: st.DrawFn) -> list[dict[str, Any]]:
    names = draw(st.lists(st.sampled_from(["f", "get_weather", "x y", 'q"ü']), unique=True, max_size=3))
    tools = []
    for name in names:
        function: dict[str, Any] = {"name": name}
        if description := draw(TEXT):
            function["description"] = description
        function["parameters"] = {"type": "object", **draw(st.dictionaries(TEXT, VALUES, max_size=3))}
        tools.append({"type": "function", "function": function})
    return tools


def conversations(*, tools: bool, reasoning: bool, names: bool = False) -> st.SearchStrategy[list[dict[str, Any]]]:
    @st.composite
    def conversation(draw: st.DrawFn) -> list[dict[str, Any]]:
        def entry(role: str, content: str) -> dict[str, Any]:
            entry: dict[str, Any] = {"role": role, "content": content}
            if role == "assistant" and reasoning and draw(st.booleans()):
                entry["reasoning_content"] = draw(REASONING)
            if names and draw(st.booleans()):
                entry["name"] = draw(VISIBLE)
            return entry

        entries = [entry("system", draw(TEXT))] if draw(st.booleans()) else []
        for _ in range(draw(st.integers(1, 3))):
            entries.append(entry("user", draw(TEXT)))
            for _ in range(draw(st.integers(0, 2)) if tools else 0):
                names_called = draw(st.lists(st.sampled_from(["f", "get_weather"]), min_size=1, max_size=2))
                step = entry("assistant", draw(TEXT))
                step["tool_calls"] = [
                    {
                        "type": "function",
                        "function": {"name": name, "arguments": json.dumps({"x": draw(TEXT)}, ensure_ascii=False)},
                    }
                    for name in names_called
                ]
                results = [{"role": "tool", "name": name, "content": draw(TEXT)} for name in names_called]
                entries += [step, *results]
            if draw(st.booleans()):
                entries.append(entry("assistant", draw(TEXT)))
        return entries

    return conversation()


def theirs(family: str, entries: list[dict[str, Any]], **options: Any) -> list[int]:
    return THEIRS[family].apply_chat_template(entries, return_dict=False, **options)


@settings(deadline=None)
@given(entries=conversations(tools=True, reasoning=True), declared=declarations())
def test_chatml_equals_qwen3(entries: list[dict[str, Any]], declared: list[dict[str, Any]]) -> None:
    messages, format, tools = from_dicts(entries), OURS["qwen3"], tools_from_dicts(declared)
    options: dict[str, Any] = {"tools": declared or None, "add_generation_prompt": True}
    assert list(format.render(messages, tools=tools).ids) == theirs("qwen3", entries, tools=declared or None)
    direct = theirs("qwen3", entries, enable_thinking=False, **options)
    assert list(format.render(messages, start=Start.DIRECT, tools=tools).ids) == direct
    thinking = theirs("qwen3", entries, **options)
    assert list(format.render(messages, start=Start.THINK, tools=tools).ids)[: len(thinking)] == thinking


@settings(deadline=None)
@given(entries=conversations(tools=False, reasoning=False))
def test_llama3_equals_llama3(entries: list[dict[str, Any]]) -> None:
    messages, format = from_dicts(entries), OURS["llama3"]
    assert list(format.render(messages).ids) == theirs("llama3", entries)
    prompt = theirs("llama3", entries, add_generation_prompt=True)
    assert list(format.render(messages, start=Start.DIRECT).ids) == prompt


@settings(deadline=None)
@given(entries=conversations(tools=False, reasoning=False))
def test_deepseek_r1_equals_deepseek_r1(entries: list[dict[str, Any]]) -> None:
    messages, format = from_dicts(entries), OURS["deepseek_r1"]
    assert list(format.render(messages).ids) == theirs("deepseek_r1", entries)
    prompt = theirs("deepseek_r1", entries, add_generation_prompt=True)
    assert list(format.render(messages, start=Start.THINK).ids) == prompt


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> tuple[PonderFormat, Any]:
    folder = tmp_path_factory.mktemp("own")
    tokenizer = train_tokenizer(["The answer is 42. It's 12345.\n\n" * 20], 416)
    tokenizer.save(folder)
    return PonderFormat(Tokenizer.load(folder)), transformers.AutoTokenizer.from_pretrained(folder)


@settings(deadline=None)
@given(entries=conversations(tools=True, reasoning=True, names=True), declared=declarations())
def test_our_template_in_transformers_equals_render(
    own: tuple[PonderFormat, Any], entries: list[dict[str, Any]], declared: list[dict[str, Any]]
) -> None:
    format, hf = own
    messages, tools = from_dicts(entries), tools_from_dicts(declared)
    for policy in ReasoningPolicy:
        options = {"return_dict": False, "all_turns": policy is ReasoningPolicy.ALL_TURNS, "tools": declared or None}
        assert list(format.render(messages, policy=policy, tools=tools).ids) == hf.apply_chat_template(
            entries, **options
        )
        for start in (Start.THINK, Start.DIRECT):
            prompt = hf.apply_chat_template(
                entries, add_generation_prompt=True, enable_thinking=start is Start.THINK, **options
            )
            assert list(format.render(messages, policy=policy, start=start, tools=tools).ids) == prompt
