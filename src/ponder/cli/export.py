"""`ponder export`: a model in a layout that other programs load."""

from __future__ import annotations

import argparse
from enum import StrEnum
from pathlib import Path

from ponder.sampler.opening import find_model
from ponder.types import InvalidRequest

NAME = "export"
HELP = "write a model as a folder for transformers and vLLM, or as a GGUF file for llama.cpp, Ollama and LM Studio"
DTYPES = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}


class Layout(StrEnum):
    """HF: config.json, generation_config.json, safetensors, tokenizer.json and the chat template. GGUF: one file."""

    HF = "hf"
    GGUF = "gguf"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a bundled model's name, a model folder or a GGUF file")
    parser.add_argument(
        "--to", choices=[layout.value for layout in Layout], default=Layout.HF.value, help="the layout (default: hf)"
    )
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="PATH", help="hf: a folder; gguf: a file")
    parser.add_argument(
        "--dtype",
        choices=[*DTYPES, "q8_0", *DTYPES.values()],
        help="of the weights (default: as stored); q8_0, for gguf: 8 bits and a scale for each 32 values",
    )
    parser.add_argument("--force", action="store_true", help="replace what is there")


def run(args: argparse.Namespace) -> int:
    folder = find_model(args.model)
    dtype = DTYPES.get(args.dtype, args.dtype)
    if Layout(args.to) is Layout.GGUF:
        return write_gguf_file(folder, args.out, args.model, dtype, args.force)
    if dtype == "q8_0":
        raise InvalidRequest("--dtype q8_0 exists in GGUF files only: add --to gguf")
    return write_hf_folder(folder, args.out, dtype, args.force)


def write_gguf_file(folder: Path, out: Path, name: str, dtype: str | None, force: bool) -> int:
    from ponder.export import export_gguf
    from ponder.gguf.layout import TensorType

    if out.suffix != ".gguf":
        raise InvalidRequest(f"--out {out} does not end in .gguf, by which programs know a GGUF file: add the ending")
    if out.exists() and not force:
        raise InvalidRequest(f"--out {out} exists already: choose another name, or replace it with --force")
    short = {long: short for short, long in DTYPES.items()}
    type = TensorType[short.get(dtype, dtype).upper()] if dtype else None
    exported = export_gguf(folder, out, type=type, name=Path(name).name, force=force)
    print(f"{out}: {exported.num_parameters:,} parameters, {exported.type.name}, {exported.num_bytes / 1e6:,.1f} MB")
    for note in exported.notes:
        print(f"note: {note}")
    return 0


def write_hf_folder(folder: Path, out: Path, dtype: str | None, force: bool) -> int:
    import torch

    from ponder.dialogue import PonderFormat, load_format, ponder_template
    from ponder.model.checkpoint import atomic_folder, load_model, write_json, write_model
    from ponder.tokenizer import Tokenizer

    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not force)):
        raise InvalidRequest(f"--out {out} exists and is not an empty folder: choose another, or add --force")
    model = load_model(folder)
    tokenizer = Tokenizer.load(folder)
    with atomic_folder(out, replace=force) as temporary:
        write_model(model, temporary, dtype=getattr(torch, dtype) if dtype else None)
        tokenizer.save(temporary)
        form = load_format(tokenizer)
        write_json(temporary / "generation_config.json", {"eos_token_id": list(form.phase_tokens.end)})
        if tokenizer.chat_template is None and isinstance(form, PonderFormat):
            (temporary / "chat_template.jinja").write_text(ponder_template(), encoding="utf-8")
    print(f"{out}: {sum(p.numel() for p in model.parameters()):,} parameters, hf layout")
    return 0
