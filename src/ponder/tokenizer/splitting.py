"""llama.cpp's splitting rules by their names (src/llama-vocab.cpp), as regular expressions: a GGUF file names one.

A text is split by the first expression, every piece by the next one; pieces are what matches, and what lies between.
The expressions are those of the tokenizer.json files that the names stand for; llama.cpp rewrites them for its engine.
"""

from __future__ import annotations

from dataclasses import dataclass

# Qwen2's (Qwen/Qwen2-7B tokenizer.json): contractions, words with at most one leading mark, digits one by one, runs of
# punctuation with the line breaks after them, white space.
SPLIT_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3_REGEX = SPLIT_REGEX.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
GPT2_REGEX = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
EACH_DIGIT = r"\p{N}"
_TEKKEN_REGEX = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, slots=True)
class SplittingRule:
    """ignore_merges: whether a piece that is a token needs no merges. adds_bos: whether a text begins with the token
    `bos` where a file does not say."""

    regexes: tuple[str, ...]
    ignore_merges: bool = False
    adds_bos: bool = False


_RULES = {
    "qwen2": SplittingRule((SPLIT_REGEX,)),  # ours too
    "llama-bpe": SplittingRule((_LLAMA3_REGEX,), ignore_merges=True, adds_bos=True),
    "dbrx": SplittingRule((_LLAMA3_REGEX,)),
    "gpt-2": SplittingRule((GPT2_REGEX,)),
    "smollm": SplittingRule((EACH_DIGIT, GPT2_REGEX)),
    "tekken": SplittingRule((_TEKKEN_REGEX,), ignore_merges=True, adds_bos=True),
    "deepseek-coder": SplittingRule((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+", EACH_DIGIT)),
    "falcon": SplittingRule((r"[\p{P}\$\+<=>\^~\|`]+", GPT2_REGEX, "[0-9][0-9][0-9]")),
    "default": SplittingRule((r"[\p{P}\$\+<=>\^~\|]+", GPT2_REGEX, r"\p{N}+", "[0-9][0-9][0-9]")),
}
_OTHER_NAMES = {
    "qwen2": ("deepseek-r1-qwen", "stablelm2", "hunyuan", "kormo", "grok-2", "solar-open"),
    "llama-bpe": ("llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"),
    "dbrx": ("smaug-bpe",),
    "gpt-2": ("phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "gigachat", "a.x-4.0", "mellum"),
    "smollm": ("starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"),
}
SPLITTING_RULES = _RULES | {name: _RULES[rule] for rule, names in _OTHER_NAMES.items() for name in names}
