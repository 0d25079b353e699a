"""Pattern matching against reasoning: what each model solves as the suite asks it, and in other questions

Other numbers, a clause that does not matter, another order, other words, one size up. Any model can be asked, an
endpoint too.

    python bench/patterns.py mini SmolLM2-135M-Instruct.Q4_1.gguf http://localhost:8000/v1#NAME -n 50
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import ponder
from ponder.evaluate import load_suite, read_hashes, standard_modes
from ponder.evaluate.audit import QuestionAudit, audit_questions, patterns_table
from ponder.evaluate.audit.report import PATTERN_NOTES
from ponder.evaluate.audit.thoughts import no_thinking


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--suite", default="audit")
    parser.add_argument("-n", type=int, default=50, help="held-out problems of each task (default: 50)")
    parser.add_argument("--thinking", type=int, default=2560, help="the cap on thinking tokens (default: 2560)")
    parser.add_argument("--trained-on", type=Path, action="append", default=[], help="question hashes of the training")
    parser.add_argument("--out", type=Path, help="write the table there as .md and .json")
    args = parser.parse_args()
    trained_on = frozenset().union(*map(read_hashes, args.trained_on)) if args.trained_on else None
    found = [(name, audits(name, args, trained_on)) for name in args.models]
    text = f"{patterns_table(found)}\n\nn: problems in all, {args.n} of each task, greedy. {PATTERN_NOTES}\n"
    print(text)
    if args.out:
        args.out.with_suffix(".md").write_text(text, encoding="utf-8")
        summary = {name: [each.summary() for each in audited] for name, audited in found}
        args.out.with_suffix(".json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def audits(name: str, args: argparse.Namespace, trained_on: frozenset[str] | None) -> list[QuestionAudit]:
    """All tasks by one model. One that does not think is asked once, and so is an endpoint: as it answers by itself."""
    with ponder.load(name) as model:
        thinks = not no_thinking(model.sampler)
        modes = standard_modes(("direct", "thinking") if thinks else ("direct",), thinking=args.thinking, samples=1)
        rows: list[QuestionAudit] = []
        for task in load_suite(args.suite):
            rows += audit_questions(model.sampler, task, args.n, modes, trained_on=trained_on)
            print(f"{name}: {task.name}", file=sys.stderr, flush=True)
    return rows


if __name__ == "__main__":
    main()
