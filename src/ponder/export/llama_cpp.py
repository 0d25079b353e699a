"""The GGUF export: one file with weights, vocabulary, end tokens and chat template."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ponder.dialogue import Format, PonderFormat, load_format, ponder_template
from ponder.dialogue.template import LLAMA_CPP_NAMES, llama_cpp_template
from ponder.export.vocabulary import llama_cpp_vocabulary
from ponder.export.weights import gguf_tensors, hyperparameters, stored_type
from ponder.gguf.layout import FILE_NAMES, OWN_NAMES, PONDER_KEY, TensorType
from ponder.gguf.writing import Value, write_gguf
from ponder.model.checkpoint import atomic_file, open_model
from ponder.model.config import ModelConfig
from ponder.model.lora import ADAPTER_CONFIG
from ponder.tokenizer import DEFAULT_TEMPLATE, Tokenizer
from ponder.types import InvalidRequest


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    notes: in what llama.cpp will differ, a sentence each.
    """

    num_parameters: int
    num_bytes: int
    type: TensorType
    notes: tuple[str, ...]


def export_gguf(
    folder: str | Path,
    file: str | Path,
    *,
    type: TensorType | None = None,
    name: str | None = None,
    force: bool = False,
) -> Exported:
    """Write the model in `folder` (Hugging Face layout, or a file) as a GGUF file. One tensor is in memory at a time.

    type: of the matrices; None: as they are stored.
    name: what programs show; None: the folder's.

    The file appears whole or not at all. Raises InvalidRequest naming what llama.cpp cannot express, CheckpointError
    when the file exists and `force` is False, and what loading the folder raises.
    """
    folder, file = Path(folder), Path(file)
    if (folder / ADAPTER_CONFIG).exists():
        raise InvalidRequest(
            f"{folder} holds a LoRA adapter: merge it (merge_lora, save_model), then export the result"
        )
    tokenizer = Tokenizer.load(folder)
    with open_model(folder) as (config, stored):
        type = type or stored_type(stored)
        fields, notes = tokenizer_fields(tokenizer, load_format(tokenizer), config)
        named: dict[str, Value] = {"general.name": name or folder.resolve().name}
        fields = hyperparameters(config, type) | named | fields | own_fields(config)
        tensors = gguf_tensors(config, stored, type)
        with atomic_file(file, replace=force) as stream:
            write_gguf(stream, fields, tensors)
    return Exported(config.num_parameters, file.stat().st_size, type, tuple(notes))


def own_fields(config: ModelConfig) -> dict[str, Value]:
    """What llama.cpp has no word for, under keys of Ponder's own: other programs pass them over."""
    values = {"thinking_tokens": config.thinking_tokens, "repeats": config.repeats, "voices": config.voices}
    return {PONDER_KEY + key: value for key, value in values.items() if value}


def tokenizer_fields(tokenizer: Tokenizer, form: Format, config: ModelConfig) -> tuple[dict[str, Value], list[str]]:
    """The fields of the vocabulary, the end tokens and the chat template; and the vocabulary's notes."""
    own = isinstance(form, PonderFormat)
    words = llama_cpp_vocabulary(tokenizer, config.vocab_size, LLAMA_CPP_NAMES if own else {})
    if not form.phase_tokens.end:
        raise InvalidRequest("the model has no end token (eos_token): name one in tokenizer_config.json")
    end, *other_ends = form.phase_tokens.end
    fields: dict[str, Value] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": words.pre_tokenizer,
        "tokenizer.ggml.tokens": words.tokens,
        "tokenizer.ggml.token_type": words.types,
        "tokenizer.ggml.merges": words.merges,
        "tokenizer.ggml.add_bos_token": words.adds_bos,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.eos_token_id": end,
        "tokenizer.ggml.eot_token_id": end,
        "tokenizer.ggml.eos_token_ids": [end, *other_ends],  # read by Ollama; llama.cpp has room for three
    }
    if other_ends:
        fields["tokenizer.ggml.eom_token_id"] = other_ends[0]
    pad = _named_id(tokenizer, "pad_token", config.pad_token_id)
    bos = _named_id(tokenizer, "bos_token", config.bos_token_id)
    if bos is None and own:  # llama.cpp would take id 11; ours separates documents with its pad token
        bos = pad
    if bos is None and words.adds_bos:
        raise InvalidRequest(
            "the tokenizer begins texts with a token that neither it nor config.json names: add "
            "bos_token to tokenizer_config.json"
        )
    for key, id in (("padding_token_id", pad), ("bos_token_id", bos)):
        if id is not None:
            fields[f"tokenizer.ggml.{key}"] = id
    if own:
        fields[FILE_NAMES], fields[OWN_NAMES] = list(LLAMA_CPP_NAMES.values()), list(LLAMA_CPP_NAMES)
    template = tokenizer.chat_template or (ponder_template() if own else None)
    if template:
        fields["tokenizer.chat_template"] = llama_cpp_template(template) if own else template
    named = {name: text for name, text in tokenizer.chat_templates.items() if name != DEFAULT_TEMPLATE}
    if named:
        fields["tokenizer.chat_templates"] = list(named)
        fields |= {f"tokenizer.chat_template.{name}": text for name, text in named.items()}
    return fields, words.notes


def _named_id(tokenizer: Tokenizer, key: str, default: int | None) -> int | None:
    """The id of a token that tokenizer_config.json names."""
    return tokenizer.control.get(tokenizer.special_name(key) or "", default)
