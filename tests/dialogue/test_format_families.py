"""Each native format equals its family's chat template, id for id, as transformers renders that (`regenerate.py`)."""

import json
from pathlib import Path
from typing import Any

import pytest

from ponder.dialogue import Start, from_dicts, load_format
from ponder.dialogue.jinja import JinjaFormat
from ponder.tokenizer import Tokenizer

pytestmark = pytest.mark.golden

FAMILIES = Path(__file__).parents[1] / "golden" / "families"
FORMATS = {"qwen3": "chatml", "llama3": "llama3", "deepseek_r1": "deepseek_r1"}
TOKENIZERS = {family: Tokenizer.load(FAMILIES / family) for family in FORMATS}
CASES = [
    pytest.param(family, case, id=f"{family}-{case['name']}")
    for family in FORMATS
    for case in json.loads((FAMILIES / family / "golden.json").read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("family", FORMATS)
def test_a_familys_folder_is_recognised(family: str) -> None:
    assert load_format(TOKENIZERS[family]).name == FORMATS[family]


@pytest.mark.parametrize(("family", "case"), CASES)
def test_a_conversation_without_a_prompt_equals_the_template(family: str, case: dict[str, Any]) -> None:
    format = load_format(TOKENIZERS[family], FORMATS[family])
    assert list(format.render(from_dicts(case["messages"])).ids) == case["ids"]


@pytest.mark.parametrize(("family", "case"), CASES)
def test_generation_prompts_equal_the_template(family: str, case: dict[str, Any]) -> None:
    tokenizer = TOKENIZERS[family]
    format = load_format(tokenizer, FORMATS[family])
    messages = from_dicts(case["messages"])
    open_think = [tokenizer.control[name] for name in ("<think>",) if name in tokenizer.control] + tokenizer.encode(
        "\n"
    )
    match family:
        case "qwen3":  # the template leaves it to the model to open its thinking
            assert list(format.render(messages, start=Start.THINK).ids) == case["prompt_ids"] + open_think
            assert list(format.render(messages, start=Start.DIRECT).ids) == case["direct_prompt_ids"]
        case "deepseek_r1":  # the template has no direct prompt
            assert list(format.render(messages, start=Start.THINK).ids) == case["prompt_ids"]
        case "llama3":
            assert list(format.render(messages, start=Start.DIRECT).ids) == case["prompt_ids"]


@pytest.mark.parametrize(("family", "case"), CASES)
def test_the_sandboxed_fallback_gives_the_same_ids(family: str, case: dict[str, Any]) -> None:
    assert list(_fallback(family).render(from_dicts(case["messages"])).ids) == case["ids"]


_FALLBACKS: dict[str, JinjaFormat] = {}


def _fallback(family: str) -> JinjaFormat:
    if family not in _FALLBACKS:
        tokenizer = TOKENIZERS[family]
        assert tokenizer.chat_template is not None
        _FALLBACKS[family] = JinjaFormat(tokenizer, tokenizer.chat_template)
    return _FALLBACKS[family]
