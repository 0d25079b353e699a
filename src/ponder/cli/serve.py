"""`ponder serve`: models behind the API that programs already speak."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ponder.cli.options import MODEL_HELP, add_quantize, add_speculate, load_reasoner
from ponder.sampler.opening import ENDPOINT
from ponder.types import InvalidRequest

if TYPE_CHECKING:
    from ponder.sampler.protocol import Sampler
    from ponder.serve import Served
    from ponder.tasks.verifiers.reward import RewardModel

NAME = "serve"
HELP = "serve models through an OpenAI-compatible API"

FLAGS: tuple[tuple[str, type, str, str], ...] = (
    ("host", str, "ADDRESS", "address to listen on (default: 127.0.0.1)"),
    ("port", int, "N", "port to listen on (default: 8000)"),
    ("keys", str, "FILE", "file of API keys; needed for any other address than this machine's own"),
    ("store", str, "FILE", "keeps responses and conversations across restarts (default: a temporary file)"),
    ("memory", str, "FILE", "keeps notes of each owner, for requests with `memory` and at /v1/memory (default: none)"),
    ("runs", str, "FOLDER", "shows the training runs beneath it, read only, on the page Runs (default: none)"),
    ("rankings", str, "FOLDER", "keeps answers and how people rank them, as `ponder rank` does (default: temporary)"),
    ("queued_requests", int, "N", "requests that may wait; more are refused with 429 (default: 256)"),
    ("queued_tokens", int, "N", "tokens of prompts that may wait (default: 1000000)"),
    ("deadline", float, "SECONDS", "that a request may take; 0 means no limit (default: 0)"),
    ("drain", float, "SECONDS", "that a shutdown waits for running requests (default: 30)"),
    ("store_days", float, "DAYS", "that a response is kept; 0 is for ever (default: 30)"),
    ("coalesce", float, "MS", "milliseconds of streamed text in one event (default: 20)"),
    ("cors", str, "ORIGINS", "origins of web pages that may use this server, separated by commas (default: none)"),
    ("root_path", str, "PATH", "what a proxy puts before each path (default: nothing)"),
    ("keep_alive", float, "SECONDS", "for which a connection without a request stays open (default: 120)"),
    ("samples", int, "N", "answers that one request may ask for, as n or by a strategy (default: 64)"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models",
        metavar="MODEL",
        nargs="*",
        help=f"NAME=MODEL, or MODEL alone, for each: {MODEL_HELP}. NAME='MODEL:STRATEGY' is a model that answers by a "
        "strategy, such as deep='mini:consensus(samples=8)' or mine='mini:FILE.py:NAME'; it shares the engine of MODEL",
    )
    parser.add_argument(
        "--model", metavar="MODEL", action="append", default=[], help="one more model, written in the same way"
    )
    parser.add_argument(
        "--lora",
        metavar="NAME=FOLDER[@MODEL]",
        action="append",
        default=[],
        help="a LoRA adapter, served as a separate model: its folder, and the name or folder of the model under it "
        "(default: what the adapter says, or the only one). All adapters of a model share its weights and its batch",
    )
    parser.add_argument(
        "--reward",
        metavar="NAME=FOLDER",
        action="append",
        default=[],
        help="a reward model, which scores answers at /v1/score",
    )
    add_quantize(parser)
    add_speculate(parser)
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings in TOML, under the names of these flags")
    parser.add_argument("--open", action="store_true", help="open the board in a browser once the server listens")
    parser.add_argument("--new-key", metavar="NAME", help="add a key to the file of --keys, print it, and end")
    for name, kind, metavar, text in FLAGS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar=metavar, help=text)
    parser.epilog = "Clients, fields, models, keys and limits: docs/serving.md."


def run(args: argparse.Namespace) -> int:
    from ponder.serve.http.auth import Keys, new_key
    from ponder.serve.settings import read_settings

    if args.new_key is not None:
        if not args.keys:
            raise InvalidRequest("--new-key needs a file in which the key's hash is kept: add --keys FILE")
        print(new_key(args.new_key, Path(args.keys)))
        return 0
    settings = read_settings(args.config, os.environ, {name: getattr(args, name) for name, *_ in FLAGS})
    keys = Keys.load(Path(settings.keys)) if settings.keys else None

    from ponder.serve import create_app
    from ponder.serve.http.server import bind, log_to_stderr, server
    from ponder.serve.store import open_store

    address = bind(settings)  # first: loading takes longer, and would be for nothing
    models = load_models([*args.models, *args.model] or ["mini"], args.lora, args.quantize, args.speculate, args.draft)
    rewards = load_rewards(args.reward)
    app = create_app(
        models, settings, keys=keys, rewards=rewards, store=open_store(settings) if settings.store else None
    )
    log_to_stderr()
    running = server(app)
    running.opens = args.open
    running.run([address])
    return 1 if running.force_exit else 0


def load_models(texts: Sequence[str], loras: Sequence[str], *local: str | None) -> list[Served]:
    """The models of NAME=MODEL[:STRATEGY] each, then the adapters of NAME=FOLDER@BASE each. Raises InvalidRequest.

    A model with a strategy shares the sampler of the model under it, which it names by its place or its served name.
    local: what `load_reasoner` takes for local models after the model, in its order.
    """
    from ponder.sampler.adapters import AdapterSampler
    from ponder.sampler.local import LocalSampler
    from ponder.serve import Served

    asked = [_parse(text) for text in texts]
    served: dict[str, Served] = {}
    samplers: dict[str, Sampler] = {}  # by place

    def add(one: Served) -> None:
        if one.name in served:
            raise InvalidRequest(f"two models are called {one.name!r}: give each its own name (NAME=MODEL)")
        served[one.name] = one

    def other(place: str) -> Sampler:
        """A model that a strategy names, by its served name or its place."""
        if place in served:
            return served[place].sampler
        if place not in samplers:
            samplers[place] = load_reasoner(place, *(() if ENDPOINT.fullmatch(place) else local)).sampler
        return samplers[place]

    for name, place, strategy in asked:
        if not strategy:
            sampler = samplers[place] = _sampler(name, place, *local)
            add(Served(name=name or sampler.name, sampler=sampler))
    plain = [place for _, place, strategy in asked if not strategy]
    places = {name: place for name, place in zip(served, plain, strict=True) if not ENDPOINT.fullmatch(place)}
    for text in loras:
        name, folder, base = _adapter(text, places)
        local_model = other(base)
        if not isinstance(local_model, LocalSampler):
            raise InvalidRequest(f"--lora {text}: {base} is on another server: name a model that runs here")
        shown = base if base in places else Path(base).name
        add(Served(name=name, sampler=AdapterSampler(local_model, name, folder), parent=shown, engine=local_model))
    for name, place, strategy in asked:
        if strategy:
            from ponder.think.registry import parse_strategy

            made = parse_strategy(strategy, models=other)  # first: loading takes longer
            under = served.get(place)
            if under is None and place not in samplers:
                samplers[place] = _sampler(name, place, *local)
            sampler = samplers[place] if under is None else under.sampler
            parent = under.name if under else next((n for n, each in served.items() if each.sampler is sampler), None)
            add(Served(name=name, sampler=sampler, strategy=made, parent=parent))
    return list(served.values())


def load_rewards(texts: Sequence[str]) -> dict[str, RewardModel]:
    """The reward models of NAME=FOLDER each. Raises InvalidRequest."""
    from ponder.tasks.verifiers.reward import RewardModel

    rewards: dict[str, RewardModel] = {}
    for text in texts:
        name, _, folder = text.partition("=")
        if not name or not folder:
            raise InvalidRequest(f"--reward {text}: write NAME=FOLDER")
        if name in rewards:
            raise InvalidRequest(f"two reward models are called {name!r}: give each its own name")
        rewards[name] = RewardModel.load(folder)
    return rewards


def _sampler(name: str, place: str, *local: str | None) -> Sampler:
    if not ENDPOINT.fullmatch(place):
        return load_reasoner(place, *local).sampler
    from ponder.serve.models import REMOTE_RUNNING

    if not name and "#" not in place:
        raise InvalidRequest(f"{place} needs a name to serve it by: NAME={place}, or {place}#MODEL")
    return load_reasoner(place, *local, concurrency=REMOTE_RUNNING).sampler


def _parse(text: str) -> tuple[str, str, str]:
    """(name, place, strategy) of NAME=MODEL:STRATEGY, "" for what is not there. Raises InvalidRequest."""
    name, mark, rest = text.partition("=")
    if not mark or "/" in name or ":" in name:  # a URL, a path or a strategy that holds a "="
        name, rest = "", text
    place, strategy = _split(rest)
    if strategy and not name:
        raise InvalidRequest(f"{text} needs a name to serve it by: NAME='{text}'")
    return name, place, strategy


def _split(text: str) -> tuple[str, str]:
    """(place, strategy) of MODEL:STRATEGY. An address and a remote name hold colons themselves: there a strategy is a
    call, a function of a file, or the name of one that there is."""
    if not ENDPOINT.fullmatch(text):
        place, _, strategy = (text, "", "") if Path(text).exists() else text.partition(":")
        return place, strategy
    from ponder.think.registry import strategy_names

    call = r"\(.*\)"
    kinds = rf"[a-z_]\w*{call}|[^:()#]+\.py:[A-Za-z_]\w*(?:{call})?|{'|'.join(strategy_names())}"
    found = re.fullmatch(rf"(.+?):({kinds})", text, re.DOTALL)
    return (found[1], found[2]) if found else (text, "")


def _adapter(text: str, places: Mapping[str, str]) -> tuple[str, Path, str]:
    """(name, folder, base): the base that is named, or that the adapter names, or the only one there is."""
    from ponder.model.lora import adapter_base

    name, _, rest = text.partition("=")
    place, _, base = rest.partition("@")
    if not name or not place:
        raise InvalidRequest(f"--lora {text}: write NAME=FOLDER, or NAME=FOLDER@MODEL")
    base = base or _served_as(adapter_base(place), places) or (next(iter(places)) if len(places) == 1 else "")
    if not base:
        raise InvalidRequest(f"--lora {text}: {place} does not say which model it is for: write {text}@MODEL")
    return name, Path(place), base


def _served_as(folder: str | None, places: Mapping[str, str]) -> str | None:
    """The name under which a folder is served here; the folder itself where it is not."""
    if folder is None:
        return None
    return next((name for name, where in places.items() if Path(where).resolve() == Path(folder).resolve()), folder)
