"""`ponder serve`: models behind the API that programs already speak."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ponder.cli.options import ENDPOINT, MODEL_HELP, add_quantize, load_reasoner
from ponder.types import InvalidRequest

if TYPE_CHECKING:
    from ponder.serve import Served

NAME = "serve"
HELP = "serve models behind an OpenAI-compatible API"

FLAGS: tuple[tuple[str, type, str, str], ...] = (
    ("host", str, "ADDRESS", "address to listen on (default: 127.0.0.1)"),
    ("port", int, "N", "port to listen on (default: 8000)"),
    ("keys", str, "FILE", "file of API keys; needed for any other address than this machine's own"),
    ("store", str, "FILE", "keeps responses and conversations across restarts (default: a temporary file)"),
    ("queued_requests", int, "N", "requests that may wait; more are refused with 429 (default: 256)"),
    ("queued_tokens", int, "N", "tokens of prompts that may wait (default: 1000000)"),
    ("deadline", float, "SECONDS", "that a request may take; 0 is no limit (default: 0)"),
    ("drain", float, "SECONDS", "that a shutdown waits for running requests (default: 30)"),
    ("store_days", float, "DAYS", "that a response is kept; 0 is for ever (default: 30)"),
    ("coalesce", float, "MS", "milliseconds of streamed text in one event (default: 20)"),
    ("samples", int, "N", "answers that one request may ask for, as n or by a strategy (default: 64)"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models",
        metavar="MODEL",
        nargs="*",
        help=f"NAME=MODEL, or MODEL alone, for each: {MODEL_HELP}",
    )
    parser.add_argument(
        "--lora",
        metavar="NAME=FOLDER[@MODEL]",
        action="append",
        default=[],
        help="a LoRA adapter, served as a model of its own: its folder, and the name or folder of the model under it "
        "(default: what the adapter says, or the only one); costs a copy of that model",
    )
    add_quantize(parser)
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings in TOML, under the names of these flags")
    parser.add_argument("--new-key", metavar="NAME", help="add a key to the file of --keys, print it, and end")
    for name, kind, metavar, text in FLAGS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar=metavar, help=text)
    parser.epilog = "Clients, fields, models, keys and limits: docs/serving.md."


def run(args: argparse.Namespace) -> int:
    from ponder.serve.auth import Keys, new_key
    from ponder.serve.settings import read_settings

    if args.new_key is not None:
        if not args.keys:
            raise InvalidRequest("--new-key needs --keys FILE: where the key's hash is kept")
        print(new_key(args.new_key, Path(args.keys)))
        return 0
    settings = read_settings(args.config, os.environ, {name: getattr(args, name) for name, *_ in FLAGS})
    keys = Keys.load(Path(settings.keys)) if settings.keys else None

    from ponder.serve import create_app
    from ponder.serve.responses.keeping import open_store
    from ponder.serve.run import bind, log_to_stderr, server

    address = bind(settings)  # first: loading takes longer, and would be for nothing
    models = load_models(args.models or ["mini"], args.lora, args.quantize)
    app = create_app(models, settings, keys=keys, store=open_store(settings) if settings.store else None)
    log_to_stderr()
    running = server(app)
    running.run([address])
    return 1 if running.force_exit else 0


def load_models(texts: Sequence[str], loras: Sequence[str], quantize: str | None) -> list[Served]:
    """The models of NAME=MODEL each, then the adapters of NAME=FOLDER@BASE each. Raises InvalidRequest."""
    from ponder.serve import Served

    named = [_name_and_place(text) for text in texts]
    served = []
    for name, where in named:
        if ENDPOINT.fullmatch(where):
            from ponder.serve.models import REMOTE_RUNNING

            if not name and "#" not in where:
                raise InvalidRequest(f"{where} needs a name to serve it by: NAME={where}, or {where}#MODEL")
            sampler = load_reasoner(where, quantize, concurrency=REMOTE_RUNNING).sampler
        else:
            sampler = load_reasoner(where, quantize).sampler
        served.append(Served(name=name or sampler.name, sampler=sampler))
    places = {each.name: where for each, (_, where) in zip(served, named, strict=True) if each.local}
    for text in loras:
        name, folder, base = _adapter(text, places)
        sampler = load_reasoner(places.get(base, base), quantize, adapter=folder).sampler
        served.append(Served(name=name, sampler=sampler, parent=base if base in places else Path(base).name))
    return served


def _name_and_place(text: str) -> tuple[str, str]:
    name, mark, where = text.partition("=")
    if not mark or "/" in name or ":" in name:  # a URL or a path that holds a "="
        return "", text
    return name, where


def _adapter(text: str, places: Mapping[str, str]) -> tuple[str, Path, str]:
    """(name, folder, base): the base that is named, or that the adapter names, or the only one there is."""
    from ponder.model.lora import adapter_base

    name, _, rest = text.partition("=")
    place, _, base = rest.partition("@")
    if not name or not place:
        raise InvalidRequest(f"--lora {text}: write NAME=FOLDER, or NAME=FOLDER@MODEL")
    base = base or adapter_base(place) or (next(iter(places)) if len(places) == 1 else "")
    if not base:
        raise InvalidRequest(f"--lora {text}: {place} does not say which model it is for: write {text}@MODEL")
    return name, Path(place), base
