"""`ponder train`: run a recipe, stage by stage, into a folder."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

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
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run folder; default: the recipe's run.folder")


def run(args: argparse.Namespace) -> int:
    from ponder.train.loop.fit import Outcome
    from ponder.train.pipeline import run as train

    folder = [f"run.folder={json.dumps(str(args.out), ensure_ascii=False)}"] if args.out else []
    result = train(args.recipe, [*args.overrides, *folder], resume=args.resume)
    if result.outcome is Outcome.INTERRUPTED:
        raise KeyboardInterrupt(f"saved in {result.folder}; continue with --resume")
    print(f"run: {result.folder}" + (f"\nmodel: {result.model}" if result.model else ""))
    return 0
