"""How often a model translates a sentence into the right formula, by z3: `python bench/translation.py MODEL -n 100`.

The sentences are statements of the families of logic, whose formulas are known; the model is told the names to use.
"""

from __future__ import annotations

import argparse
import re
from random import Random

from ponder.cli.options import load_reasoner
from ponder.evaluate.intervals import wilson
from ponder.sampler.protocol import Sampler
from ponder.tasks.families.logic import LOGIC_FAMILIES
from ponder.tasks.prove.document import read_document
from ponder.tasks.prove.logic import LogicError, formula_text
from ponder.tasks.prove.prover import Verdict, prove
from ponder.tasks.prove.translate import translate


def accuracy(sampler: Sampler, n: int, seed: int = 0) -> tuple[int, int]:
    """Of n sentences: how many translations are formulas, and how many of them mean what the sentence says."""
    rng = Random(f"translation/{seed}")
    formulas = right = asked = 0
    while asked < n:
        question = LOGIC_FAMILIES[rng.choice(("contradictions", "follows"))].sample(rng, rng.random()).question
        sentences = re.findall(r"^\d\. (.*)$", question, re.MULTILINE)[: n - asked]
        document = read_document("\n".join(sentences))
        made = translate(sentences, sampler, document.signature).formulas
        asked += len(sentences)
        formulas += len(made)
        for statement in document.statements:
            if (formula := made.get(statement.text)) is not None:
                right += means(formula, formula_text(statement.formula))
    return formulas, right


def means(formula: str, wanted: str) -> bool:
    """Whether two formulas are equivalent."""
    try:
        document = read_document(f"? ({formula}) <-> ({wanted})")
    except LogicError:
        return False  # its types are others
    return bool(document.goals) and prove(document).findings[0].verdict is Verdict.PROVED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("-n", type=int, default=100)
    args = parser.parse_args()
    with load_reasoner(args.model) as reasoner:
        formulas, right = accuracy(reasoner.sampler, args.n)
    interval = wilson(right, args.n)
    print(f"{args.model}: {formulas} of {args.n} translations are formulas; {right} mean the same, "
          f"{right / args.n:.3f} ({interval.low:.3f}–{interval.high:.3f})")  # fmt: skip


if __name__ == "__main__":
    main()
