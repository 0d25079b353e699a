"""`ponder inspect`: one answer, and what the model computed as it gave it, as one HTML file."""

from __future__ import annotations

import argparse
import math
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ponder.cli.ask import read_question
from ponder.cli.options import MODEL_HELP, add_thinking, load_reasoner, positive
from ponder.sampler.opening import ENDPOINT, find_model
from ponder.types import InvalidRequest, Origin, Segment

if TYPE_CHECKING:
    from ponder.think import Reasoner
    from ponder.think.ask import AskSettings
    from ponder.tokenizer import Tokenizer

NAME = "inspect"
HELP = "ask one question, and write a page that shows what the model computed at every token"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("question", metavar="QUESTION", help="the question; - reads it from standard input")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the page (HTML)")
    parser.add_argument("--model", default="mini", metavar="M", help=f"{MODEL_HELP}; not an endpoint")
    add_thinking(parser, effort="how long to think")
    parser.add_argument("--max-tokens", type=positive, metavar="N", help="of the answer, thinking included")
    parser.add_argument("--temperature", type=float, metavar="T", help="0 is greedy, the default")
    parser.add_argument("--seed", type=int, metavar="N", help="makes a sampled answer repeatable")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--text", action="store_true", help="QUESTION is a text that the model only reads: no turns, no answer"
    )
    instead.add_argument(
        "--branch",
        type=_branch,
        metavar="PLACE=ID",
        help="keep the answer up to token number PLACE of its last context, put token ID there, and go on",
    )
    parser.add_argument(
        "--largest", type=positive, default=8, metavar="MB", help="of the page: attention is left out until it fits"
    )


def _branch(text: str) -> tuple[int, int]:
    place, _, id = text.partition("=")
    return int(place), int(id)


def run(args: argparse.Namespace) -> int:
    if ENDPOINT.fullmatch(args.model):
        raise InvalidRequest("an endpoint does not show what it computes: name a local model")
    import torch

    from ponder.lens.draw import draw, read_only
    from ponder.model.checkpoint import load_model

    question = read_question(args.question)
    with load_reasoner(args.model) as reasoner:
        tokenizer, name = _tokenizer(reasoner), reasoner.name
        text = read_only(_read(tokenizer, question)) if args.text else None
        segments = [text] if text else _segments(reasoner, question, args)
    written = draw(
        load_model(find_model(args.model), dtype=torch.float32),
        tokenizer,
        segments,
        title=question.splitlines()[0][:200],
        name=name,
        branch="" if args.text else _command(args, question),
        largest=args.largest * 1_000_000,
    )
    args.output.write_text(written, encoding="utf-8")
    print(f"{args.output}: {len(written.encode()) / 1e6:.2g} MB; open it in a browser")
    return 0


def _tokenizer(reasoner: Reasoner) -> Tokenizer:
    tokenizer = reasoner.sampler.capabilities.tokenizer
    assert tokenizer is not None  # only endpoints have none
    return tokenizer


def _read(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a plain text, after the token with which this model's texts begin, where it has one."""
    begin = tokenizer.special_name("bos_token")
    return [*([] if begin is None else [tokenizer.control_id(begin)]), *tokenizer.encode(text)]


def _segments(reasoner: Reasoner, question: str, args: argparse.Namespace) -> list[Segment]:
    settings: AskSettings = {
        "effort": args.effort,
        "thinking": args.thinking,
        "max_tokens": args.max_tokens,
        "temperature": args.temperature,
        "seed": args.seed,
    }
    segments = list(reasoner.ask(question, **settings).completions[0].segments)
    return segments if args.branch is None else _branched(reasoner, segments, args.branch, settings)


def _branched(
    reasoner: Reasoner, segments: list[Segment], branch: tuple[int, int], settings: AskSettings
) -> list[Segment]:
    """The contexts with another token at a place of the last, and what the model says after it."""
    place, id = branch
    last = segments[-1]
    capabilities = reasoner.sampler.capabilities
    tokenizer, format = capabilities.tokenizer, capabilities.format
    assert tokenizer is not None
    assert format is not None
    from ponder.lens.branch import branch_at
    from ponder.sampler.threads import run_sync
    from ponder.think import Ask

    found = branch_at(segments, place, id, tokenizer, format.phase_tokens, f"--branch {place}={id}")
    kept = found.kept
    before = replace(
        last,
        ids=(*last.ids[:kept], id),
        logprobs=(*last.logprobs[:kept], math.nan),
        phases=last.phases[: kept + 1],
        origins=(*last.origins[:kept], Origin.FORCED),
        top_logprobs=(),
    )
    if found.phase is None:
        return [*segments[:-1], before]
    ask = Ask(prompt=found.prompt, start=found.phase).override(**settings)
    (completion,) = run_sync(reasoner.sampler.sample(ask.request(capabilities, n=1)))
    after, *later = completion.segments
    return [
        *segments[:-1],
        replace(
            before,
            ids=(*before.ids, *after.ids),
            logprobs=(*before.logprobs, *after.logprobs),
            phases=(*before.phases, *after.phases),
            origins=(*before.origins, *after.origins),
        ),
        *later,
    ]


def _command(args: argparse.Namespace, question: str) -> str:
    """What goes on from another token, as the page says it."""
    words = ["ponder", "inspect", question, "-o", f"branch-{args.output.name}", "--model", str(args.model)]
    for option in ("effort", "thinking", "max_tokens", "temperature", "seed"):
        value = getattr(args, option)
        if value is not None:
            words += [f"--{option.replace('_', '-')}", str(value)]
    return f"{shlex.join(words)} --branch {{place}}={{id}}"
