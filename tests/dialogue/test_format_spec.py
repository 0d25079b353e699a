"""`docs/format.md` says what the code does: its vocabulary, its table of control tokens and its worked examples."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ponder.dialogue import (
    CONTROL_TOKENS,
    PonderFormat,
    ReasoningPolicy,
    Start,
    from_dicts,
    tools_from_dicts,
    train_tokenizer,
)
from ponder.tokenizer.splitting import SPLIT_REGEX

pytestmark = pytest.mark.golden

SPEC = (Path(__file__).parents[2] / "docs" / "format.md").read_text(encoding="utf-8")
TOKENIZER = train_tokenizer([], 320)
EXAMPLE = re.compile(
    r"\*\*(?P<title>[^\n]*)\*\*\n\n```json example\n(?P<given>.*?)```\n```text rendered\n(?P<text>.*?)\n```\n"
    r"```text ids\n(?P<ids>.*?)```\n```text loss\n(?P<loss>.*?)```",
    re.DOTALL,
)
EXAMPLES = {found["title"]: found.groupdict() for found in EXAMPLE.finditer(SPEC)}


def test_the_table_lists_the_control_tokens_in_order() -> None:
    rows = re.findall(r"^\| (\d+) \| `(<.*?>)` \|", SPEC, re.MULTILINE)
    assert [name.replace("\\|", "|") for _, name in rows] == list(CONTROL_TOKENS[:22])
    assert [int(k) for k, _ in rows] == list(range(22))
    assert len(CONTROL_TOKENS) == 53
    assert [TOKENIZER.control_id(name) for name in CONTROL_TOKENS] == list(range(320 - 53, 320))


def test_the_splitting_expression_is_the_one_written_down() -> None:
    assert SPLIT_REGEX in SPEC


def test_the_bytes_have_the_ids_written_down() -> None:
    assert [TOKENIZER.encode(text) for text in ("!", "a", " ", "\n")] == [[0], [64], [220], [198]]


def test_every_example_is_read() -> None:
    assert len(EXAMPLES) == SPEC.count("```json example") == 11


@pytest.mark.parametrize("title", EXAMPLES)
def test_an_example_renders_as_written(title: str) -> None:
    example = EXAMPLES[title]
    given: dict[str, Any] = json.loads(example["given"])
    format, messages, policy = PonderFormat(TOKENIZER), from_dicts(given["messages"]), ReasoningPolicy(given["policy"])
    if "context" in given:
        rendered = format.contexts(messages, policy=policy)[given["context"]]
    else:
        tools = tools_from_dicts(given.get("tools", ()))
        rendered = format.render(messages, policy=policy, start=Start(given["start"]), tools=tools)
    assert rendered.ids == tuple(map(int, example["ids"].split()))
    assert TOKENIZER.decode(rendered.ids) == example["text"]
    assert "".join("01"[learned] for learned in rendered.assistant_mask()) == "".join(example["loss"].split())
