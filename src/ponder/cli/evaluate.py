"""`ponder eval`: how much of a suite a model solves, directly, thinking and by consensus, and what that costs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, TypedDict

from ponder.cli.evaluate_options import CAPS, add_eval_options
from ponder.cli.options import load_reasoner
from ponder.types import InvalidRequest

if TYPE_CHECKING:
    from ponder.evaluate import Curve, Result
    from ponder.evaluate.audit import PlantedRate, ThinkingAudit
    from ponder.sampler.protocol import Sampler
    from ponder.tasks.protocol import Task
    from ponder.think import AskSettings, Reasoner

NAME = "eval"
HELP = "measure a model on held-out problems: direct, thinking and consensus, with intervals"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_eval_options(parser)


def run(args: argparse.Namespace) -> int:
    from ponder.evaluate import (
        evaluate,
        load_suite,
        plot_curves,
        plot_pass_at,
        read_hashes,
        standard_modes,
        table_of_curves,
    )
    from ponder.model.storage import write_text

    if args.samples < max(args.pass_at or (1,)):
        raise InvalidRequest(
            f"--pass-at {max(args.pass_at)} needs at least that many --samples (got {args.samples}): raise "
            "--samples, or lower --pass-at"
        )
    votes = args.samples > 1 and (args.modes is None or "consensus" in args.modes)
    if not votes and (args.pass_at or args.plot_pass_at):
        raise InvalidRequest(
            "pass@k is measured on the samples of the mode consensus: add it to --modes, and give --samples "
            "of at least 2"
        )
    if (args.oracle or args.plot_compute) and not args.budget:
        raise InvalidRequest("--oracle and --plot-compute are of the comparison by compute: give --budget")
    if args.budget and (args.modes or not args.strategy):
        raise InvalidRequest("--budget compares the strategies that are given: give --strategy, and leave out --modes")
    for file in filter(None, (args.json, args.markdown, args.page, args.plot, args.plot_pass_at, args.plot_compute)):
        if not file.absolute().parent.is_dir():
            raise InvalidRequest(f"{file}: the folder {file.absolute().parent} does not exist: make it first")
    if args.forgetting:
        return forgetting(args)
    if args.audit:
        return run_audit(args)
    if args.page:
        raise InvalidRequest("--page needs --audit: it is the page of an audit")
    if args.learned:
        raise InvalidRequest("--learned says what the models of --forgetting learned: name them too")
    if args.wordings:
        return compare_wordings(args)
    wanted_caps = args.cap_curve or (CAPS if args.plot else ())
    if args.strategy and args.modes is None:
        args.modes = ()
    if args.modes == () and not wanted_caps and not args.strategy:
        raise InvalidRequest("--modes none leaves nothing to measure: add --strategy or --cap-curve")
    if args.budget:
        return run_compute(args)
    modes = standard_modes(
        args.modes,
        strategies=args.strategy,
        effort=args.effort,
        thinking=args.thinking,
        samples=args.samples,
        temperature=args.temperature,
        seed=args.seed,
    )
    tasks = load_suite(args.suite)
    trained_on = frozenset().union(*map(read_hashes, args.trained_on)) if args.trained_on else None
    with load_reasoner(args.model, args.quantize) as reasoner:
        report = evaluate(
            reasoner.sampler,
            tasks,
            args.n,
            modes=modes,
            start=args.start,
            trained_on=trained_on,
            progress=tell,
            pass_at=args.pass_at,
            settings=how_long(args),
        )
        curves = measure_curves(reasoner, tasks, args.n, args.start, wanted_caps)
    tables = "\n".join([*([report.markdown()] if modes else []), *([table_of_curves(curves)] if curves else [])])
    print(tables, end="")
    if args.markdown:
        write_text(args.markdown, tables)
    if args.json:
        summary = report.summary() | ({"curves": [each.summary() for each in curves]} if curves else {})
        write_text(args.json, json.dumps(summary, indent=2) + "\n")
    if args.plot_pass_at:
        plot_pass_at(report.voted, args.plot_pass_at, args.pass_at)
    if args.plot:
        plot_curves(curves, args.plot)
    return 0


def forgetting(args: argparse.Namespace) -> int:
    """What models that were tuned one from the other still know. One strategy measures all: --strategy, or thinking."""
    from contextlib import ExitStack

    from ponder.evaluate import load_suite, measure_forgetting, standard_modes
    from ponder.model.storage import write_text

    if args.cap_curve or args.plot or args.plot_pass_at or args.pass_at or args.trained_on or args.modes is not None:
        raise InvalidRequest(
            "--forgetting takes --suite, --learned, -n, --start, --strategy, --effort or --thinking, --prompts, --json "
            "and --markdown: leave the others out"
        )
    if len(args.strategy) > 1:
        raise InvalidRequest(f"--forgetting measures by one strategy (got {len(args.strategy)}): leave the others out")
    modes = standard_modes(
        () if args.strategy else ("thinking",), strategies=args.strategy, effort=args.effort, thinking=args.thinking
    )
    (mode,) = modes.values()
    places = [args.model, *args.forgetting]
    with ExitStack() as stack:
        reasoners = [stack.enter_context(load_reasoner(place, args.quantize)) for place in places]
        found = measure_forgetting(
            [each.sampler for each in reasoners],
            load_suite(args.suite),
            [load_suite(each) for each in args.learned],
            args.n,
            mode,
            names=places,
            start=args.start,
            prompts=args.prompts,
            progress=tell,
        )
    print(found.markdown(), end="")
    if args.markdown:
        write_text(args.markdown, found.markdown())
    if args.json:
        write_text(args.json, json.dumps(found.summary(), indent=2) + "\n")
    return 0


def compare_wordings(args: argparse.Namespace) -> int:
    """What the second wording changes, a line for each task. Raises InvalidRequest for what cannot go with it."""
    from ponder.evaluate import held_out, load_suite
    from ponder.evaluate.wording import wording_effect
    from ponder.think import parse_strategy

    beside = {"--modes": args.modes, "--cap-curve": args.cap_curve, "--plot": args.plot, "--markdown": args.markdown}
    beside |= {"--pass-at": args.pass_at, "--plot-pass-at": args.plot_pass_at, "--trained-on": args.trained_on}
    for option, value in beside.items():
        if value is not None:
            raise InvalidRequest(f"{option} cannot be used beside --wordings: leave it out")
    if len(args.strategy) > 1:
        raise InvalidRequest(f"--wordings compares by one strategy (got {len(args.strategy)}): give one --strategy")
    try:
        before, after = (file.read_text(encoding="utf-8") for file in args.wordings)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"--wordings: {error}") from None
    strategy = parse_strategy(args.strategy[0] if args.strategy else "direct")
    effects = []
    with load_reasoner(args.model, args.quantize) as reasoner:
        for task in load_suite(args.suite):
            problems = held_out(task, args.n, start=args.start)
            effect = wording_effect(reasoner.sampler, task, problems, before, after, strategy, settings=how_long(args))
            print(effect.words(), flush=True)
            effects.append(effect)
    if args.json:
        from ponder.model.storage import write_text

        write_text(args.json, json.dumps([asdict(each) | {"measurable": each.measurable} for each in effects]) + "\n")
    return 0


def run_audit(args: argparse.Namespace) -> int:
    """Whether answers depend on their thinking, and what other questions of the same kind change."""
    from ponder.evaluate import load_suite, read_hashes, standard_modes
    from ponder.evaluate.audit import AuditReport, audit_questions
    from ponder.model.storage import write_text

    beside = {"--strategy": args.strategy, "--budget": args.budget, "--plot": args.plot, "--wordings": args.wordings}
    beside |= {"--cap-curve": args.cap_curve, "--pass-at": args.pass_at, "--plot-pass-at": args.plot_pass_at}
    for option, value in (beside | {"--learned": args.learned}).items():
        if value:
            raise InvalidRequest(f"{option} cannot be used beside --audit: leave it out")
    asked = ("direct", "thinking") if args.modes is None else args.modes
    modes = standard_modes(asked, effort=args.effort, thinking=args.thinking, samples=1) if asked else {}
    trained_on = frozenset().union(*map(read_hashes, args.trained_on)) if args.trained_on else None
    tasks = load_suite(args.suite)
    with load_reasoner(args.model, args.quantize) as reasoner:
        report = AuditReport(model=reasoner.name, n=args.n, **audited_thinking(reasoner.sampler, tasks, args))
        questions = []
        for task in tasks if modes else ():
            questions += audit_questions(reasoner.sampler, task, args.n, modes, start=args.start, trained_on=trained_on)
            print(f"{task.name}: asked in other ways", file=sys.stderr, flush=True)
    report = replace(report, questions=tuple(questions))
    print(report.markdown(), end="")
    if args.markdown:
        write_text(args.markdown, report.markdown())
    if args.json:
        write_text(args.json, json.dumps(report.summary(), indent=2) + "\n")
    if args.page:
        from ponder.lens.audit_page import audit_page

        write_text(args.page, audit_page(report))
    return 0


class ThinkingFindings(TypedDict, total=False):
    """The fields of an `AuditReport` that are of thoughts."""

    thinking: tuple[ThinkingAudit, ...]
    planted: tuple[PlantedRate, ...]
    unavailable: str


def audited_thinking(sampler: Sampler, tasks: Sequence[Task], args: argparse.Namespace) -> ThinkingFindings:
    """The part of an audit that needs the thoughts of a local model, or why there is none."""
    from ponder.evaluate import held_out
    from ponder.evaluate.audit import Thinker, audit_planted, audit_thinking
    from ponder.evaluate.audit.thoughts import no_thinking

    if reason := no_thinking(sampler):
        return {"unavailable": reason}
    thinker = Thinker(sampler, {"effort": args.effort, "thinking": args.thinking})
    audits = []
    for task in tasks:
        audits.append(audit_thinking(thinker, task, held_out(task, args.n, start=args.start)))
        print(f"{task.name}: thinking audited", file=sys.stderr, flush=True)
    return {"thinking": tuple(audits), "planted": tuple(audit_planted(thinker, args.planted)) if args.planted else ()}


def run_compute(args: argparse.Namespace) -> int:
    """Strategies under budgets of tokens, on the same problems."""
    from ponder.evaluate import (
        compare_strategies,
        compute_summary,
        held_out,
        load_suite,
        plot_compute,
        table_of_compute,
    )
    from ponder.model.storage import write_text
    from ponder.think import parse_strategy

    strategies = {text: parse_strategy(text) for text in args.strategy}
    problems = [(task, each) for task in load_suite(args.suite) for each in held_out(task, args.n, start=args.start)]
    with load_reasoner(args.model, args.quantize) as reasoner:
        points = compare_strategies(
            reasoner.sampler, problems, strategies, args.budget, oracle=args.oracle, settings=how_long(args)
        )
        title = f"{reasoner.name}, {args.suite}, {len(problems)} problems"
    table = table_of_compute(points)
    print(table, end="")
    if args.markdown:
        write_text(args.markdown, table)
    if args.json:
        write_text(args.json, json.dumps({"suite": args.suite, "points": compute_summary(points)}, indent=2) + "\n")
    if args.plot_compute:
        plot_compute(points, args.plot_compute, title)
    return 0


def how_long(args: argparse.Namespace) -> AskSettings:
    """What --effort and --thinking say, for strategies that are given by their text."""
    if args.effort is None and args.thinking is None:
        return {"effort": "high", "seed": args.seed}
    return {"effort": args.effort, "thinking": args.thinking, "seed": args.seed}


def measure_curves(reasoner: Reasoner, tasks: Sequence[Task], n: int, start: int, caps: Sequence[int]) -> list[Curve]:
    """Accuracy against the thinking cap, a curve for each task; none without caps."""
    from ponder.evaluate import curve, held_out

    curves = []
    for task in tasks if caps else ():
        each = curve(reasoner.sampler, task, held_out(task, n, start=start), caps)
        for result in each.results:
            tell(result)
        curves.append(each)
    return curves


def tell(result: Result) -> None:
    """Progress, as results come in."""
    print(
        f"{result.task} {result.mode}: solved {result.solved}/{result.n} in {result.seconds:.0f} s",
        file=sys.stderr,
        flush=True,
    )
