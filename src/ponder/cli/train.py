"""`ponder train`: run a recipe, stage by stage, into a folder."""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from pathlib import Path

from ponder.cli.options import positive
from ponder.types import PonderError

NAME = "train"
HELP = "run a recipe: tokenizer, pre-training, chain-of-thought tuning, reinforcement learning"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", type=Path, help="a TOML file, such as recipes/smoke/all.toml")
    parser.add_argument(
        "--set",
        dest="overrides",
        metavar="SECTION.KEY=VALUE",
        action="append",
        default=[],
        help="override one value of the recipe; may be given again",
    )
    parser.add_argument("--resume", action="store_true", help="go on from the run folder's last checkpoints")
    parser.add_argument(
        "--actors",
        type=positive,
        metavar="N",
        help="processes on this machine that sample and grade answers; default: the one that learns (docs/cluster.md)",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run folder; default: the recipe's run.folder")


def run(args: argparse.Namespace) -> int:
    from ponder.cluster.fleet import check_fleet_is_used, children, fleet
    from ponder.train.loop.fit import Outcome
    from ponder.train.loop.world import joined_world
    from ponder.train.pipeline import load_recipe
    from ponder.train.pipeline import run as train
    from ponder.train.policy.sampling import rollouts_by

    folder = [f"run.folder={json.dumps(str(args.out), ensure_ascii=False)}"] if args.out else []
    overrides = [*args.overrides, *folder]
    with joined_world() as here, ExitStack() as held:
        try:
            if args.actors:
                check_fleet_is_used(load_recipe(args.recipe, overrides))
                held.enter_context(rollouts_by(fleet(args.actors, children())))
            result = train(args.recipe, overrides, resume=args.resume)
        except (PonderError, OSError):
            if here.first:
                raise
            return 1  # the first worker says what it was
        interrupted = result.outcome is Outcome.INTERRUPTED
        if interrupted and here.first:
            raise KeyboardInterrupt(f"saved in {result.folder}; continue with --resume")
        print(f"run: {result.folder}" + (f"\nmodel: {result.model}" if result.model else ""))
        return 130 if interrupted else 0
