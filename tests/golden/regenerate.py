"""Write the families' test tokenizers and golden files again: `python tests/golden/regenerate.py`. Look at the diff.

Each `families/NAME` is a folder that transformers loads: a small byte-level BPE with the family's own control tokens
and flags (Qwen3's `<think>` is an added token that is not special) and its chat template. `golden.json` holds what that
template gives in transformers, never what Ponder gives.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from ponder.tokenizer import Tokenizer

VOCABULARY = 384
FAMILIES = Path(__file__).parent / "families"
# Control tokens in id order; True: flagged special.
TOKENS: dict[str, dict[str, bool]] = {
    "qwen3": {
        **dict.fromkeys(("<|endoftext|>", "<|im_start|>", "<|im_end|>"), True),
        **dict.fromkeys(
            ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"), False
        ),
    },
    "llama3": dict.fromkeys(
        (
            "<|begin_of_text|>",
            "<|end_of_text|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|eom_id|>",
            "<|eot_id|>",
        ),
        True,
    ),
    "deepseek_r1": {
        **dict.fromkeys(("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"), True),
        **dict.fromkeys(("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"), False),
    },
}
SPECIAL = {
    "qwen3": {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
    "llama3": {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
    "deepseek_r1": {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>"},
}
TEXTS = (
    "The answer is 42. Let me check: 6 * 7 = 42.\n\nYes.\n",
    'assistant\nuser\nsystem\n{"name": "multiply", "arguments": {"a": 6, "b": 7}}\n',
    "def f(x):\n    return x + 1\n\n\nprint(f(2))\n# Wait, that is wrong...\n\n",
    "Grüße aus Köln! 你好，世界。 What's the weather like today? I don't know; it's cold.\n",
)


def system(content: str) -> dict[str, Any]:
    return {"role": "system", "content": content}


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: str, reasoning: str | None = None, calls: list[tuple[str, str]] | None = None) -> dict[str, Any]:
    entry: dict[str, Any] = {"role": "assistant", "content": content}
    if reasoning is not None:
        entry["reasoning_content"] = reasoning
    if calls:
        entry["tool_calls"] = [
            {"type": "function", "function": {"name": name, "arguments": arguments}} for name, arguments in calls
        ]
    return entry


def tool(name: str, content: str) -> dict[str, Any]:
    return {"role": "tool", "name": name, "content": content}


PLAIN = {
    "one_question": [user("What is 6 * 7?")],
    "system_and_question": [system("You are a careful assistant."), user("What is 6 * 7?")],
    "system_that_ends_in_a_line_break": [system("Rules:\n1. Be brief.\n"), user("Hi")],
    "two_turns": [user("Hi"), assistant("Hello! How can I help?"), user("Grüße 你好\n\n    indented")],
    "white_space_around_the_text": [user("  spaced  \n"), assistant("fine."), user("\tand tabs\t")],
    "empty_texts": [system(""), user(""), assistant(""), user("?")],
}
REASONED = {
    "old_reasoning_is_dropped": [user("2+2?"), assistant("4.", "Two and two."), user("And 3 more?")],
    "two_old_turns": [user("a"), assistant("b", "r1"), user("c"), assistant("d", "r2\n\nWait.\n"), user("e")],
}
CURRENT = {
    "last_turn_with_reasoning": [user("2+2?"), assistant("4.", "Two and two\nmake four.")],
    "last_turn_without_reasoning": [user("2+2?"), assistant("4.")],
    "line_breaks_around_reasoning": [user("2+2?"), assistant("\n\n4.", "\nTwo and two.\n\n")],
}
TOOLS = {
    "a_call": [user("6*7?"), assistant("", "use it", [("multiply", '{"a": 6, "b": 7}')]), tool("multiply", "42")],
    "text_before_calls": [user("x"), assistant("Let me see.", None, [("f", "{}"), ("g", '{"x": [1, "ü"]}')])],
    "two_results": [
        *(user("x"), assistant("", None, [("f", "{}"), ("g", "{}")]), tool("f", '{"r": 1}'), tool("g", "two\n")),
        *(assistant("Done.", "both are in"), user("thanks")),
    ],
    "a_loop_keeps_its_reasoning": [
        *(user("old"), assistant("gone", "old thoughts"), user("x"), assistant("Hm.", "first", [("f", "{}")])),
        *(tool("f", "1"), assistant("", "second", [("f", '{"again": true}')]), tool("f", "2")),
    ],
}
CONVERSATIONS = {
    "qwen3": PLAIN | REASONED | CURRENT | TOOLS,
    "llama3": PLAIN,
    "deepseek_r1": PLAIN | REASONED,
}


def write_tokenizer(family: str) -> None:
    folder = FAMILIES / family

    spec = dict(Tokenizer.train(TEXTS * 4, VOCABULARY, ())._spec)
    spec["added_tokens"] = [
        {"id": VOCABULARY + i, "content": name, "special": special, "normalized": False}
        | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        for i, (name, special) in enumerate(TOKENS[family].items())
    ]
    template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **SPECIAL[family]}
    (folder / "tokenizer.json").write_text(json.dumps(spec, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps(config, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
    )
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def reference(folder: Path, entries: list[dict[str, Any]], **options: Any) -> list[int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
    return tokenizer.apply_chat_template(entries, tokenize=True, return_dict=False, **options)


def main() -> None:
    for family, conversations in CONVERSATIONS.items():
        write_tokenizer(family)
        folder = FAMILIES / family
        golden = [
            {
                "name": name,
                "messages": entries,
                "ids": reference(folder, entries),
                "prompt_ids": reference(folder, entries, add_generation_prompt=True),
                "direct_prompt_ids": reference(folder, entries, add_generation_prompt=True, enable_thinking=False),
            }
            for name, entries in conversations.items()
        ]
        lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in golden)
        (folder / "golden.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
