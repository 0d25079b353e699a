"""`ponder serve`: models behind the API that programs already speak."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ponder.cli.options import add_quantize, load
from ponder.types import InvalidRequest

if TYPE_CHECKING:
    from ponder.serve import Served

NAME = "serve"
HELP = "serve models behind an OpenAI-compatible API"

FLAGS: tuple[tuple[str, type, str], ...] = (
    ("host", str, "address to listen on (default: 127.0.0.1)"),
    ("port", int, "port to listen on (default: 8000)"),
    ("keys", str, "file of API keys; needed for any other address than this machine's own"),
    ("store", str, "file that keeps responses and conversations (default: in memory)"),
    ("queued_requests", int, "requests that may wait; more are refused with 429 (default: 256)"),
    ("queued_tokens", int, "tokens of prompts that may wait (default: 1000000)"),
    ("deadline", float, "seconds that a request may take; 0 is no limit (default: 0)"),
    ("drain", float, "seconds that a shutdown waits for running requests (default: 30)"),
    ("coalesce", float, "milliseconds of streamed text in one event (default: 20)"),
    ("samples", int, "samples that a strategy may ask for (default: 64)"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models",
        metavar="MODEL",
        nargs="*",
        help="NAME=MODEL, or MODEL alone, for each: a bundled model's name, a model folder, or an OpenAI-compatible "
        "endpoint as URL#MODEL (default: mini)",
    )
    add_quantize(parser)
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings in TOML, under the names of these flags")
    parser.add_argument("--new-key", metavar="NAME", help="add a key to the file of --keys, print it, and end")
    for name, kind, text in FLAGS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar=name.upper(), help=text)


def run(args: argparse.Namespace) -> int:
    from ponder.serve.auth import Keys, new_key
    from ponder.serve.settings import read_settings

    if args.new_key is not None:
        if not args.keys:
            raise InvalidRequest("--new-key needs --keys FILE: where the key's hash is kept")
        print(new_key(args.new_key, Path(args.keys)))
        return 0
    settings = read_settings(args.config, os.environ, {name: getattr(args, name) for name, _, _ in FLAGS})
    keys = Keys.load(Path(settings.keys)) if settings.keys else None

    from ponder.serve import create_app
    from ponder.serve.run import log_to_stderr, server
    from ponder.serve.store import Store

    models = [served(each, args.quantize) for each in args.models or ["mini"]]
    app = create_app(models, settings, keys=keys, store=Store(settings.store) if settings.store else None)
    log_to_stderr()
    running = server(app)
    running.run()
    return 1 if running.force_exit else 0


def served(text: str, quantize: str | None) -> Served:
    """NAME=MODEL, or MODEL under its own name."""
    from ponder.serve import Served

    name, mark, where = text.partition("=")
    if not mark or "/" in name or ":" in name:  # a URL or a path that holds a "="
        name, where = "", text
    sampler = load(where, quantize).sampler
    return Served(name=name or sampler.name, sampler=sampler)
