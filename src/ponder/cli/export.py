"""`ponder export`: a model folder in the layout that other programs load."""

from __future__ import annotations

import argparse
from enum import StrEnum
from pathlib import Path

from ponder.front import model_folder

NAME = "export"
HELP = "write a model as a folder that transformers, vLLM and llama.cpp's converter load"


class Layout(StrEnum):
    """HF: config.json, generation_config.json, safetensors, tokenizer.json and the chat template."""

    HF = "hf"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a bundled model's name or a model folder")
    parser.add_argument("--to", choices=[layout.value for layout in Layout], default=Layout.HF.value, help="the layout")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a folder that is new or empty")
    parser.add_argument("--dtype", choices=["bfloat16", "float16", "float32"], help="default: as stored")


def run(args: argparse.Namespace) -> int:
    import torch

    from ponder.dialogue import PonderFormat, load_format, ponder_template
    from ponder.model.checkpoint import atomic_folder, load_model, write_json, write_model
    from ponder.tokenizer import Tokenizer
    from ponder.types import InvalidRequest

    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        raise InvalidRequest(f"--out {args.out}: exists and is not an empty folder; choose another")
    folder = model_folder(args.model)
    model = load_model(folder)
    tokenizer = Tokenizer.load(folder)
    dtype: torch.dtype | None = getattr(torch, args.dtype) if args.dtype else None
    with atomic_folder(args.out) as temporary:
        write_model(model, temporary, dtype=dtype)
        tokenizer.save(temporary)
        form = load_format(tokenizer)
        write_json(temporary / "generation_config.json", {"eos_token_id": list(form.phase_tokens.end)})
        if tokenizer.chat_template is None and isinstance(form, PonderFormat):
            (temporary / "chat_template.jinja").write_text(ponder_template(), encoding="utf-8")
    print(f"{args.out}: {sum(p.numel() for p in model.parameters()):,} parameters, {args.to} layout")
    return 0
