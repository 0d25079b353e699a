"""Sums and differences of decimals: all brought to as many decimal places, then summed as whole numbers in columns."""

from __future__ import annotations

from decimal import Decimal, DefaultContext, localcontext
from random import Random

from ponder.tasks.families.working.columns import LABELS, add, difference, lowest_first, signed_sum
from ponder.tasks.families.working.family import ProblemFamily, beyond, number_of_digits, size_at
from ponder.tasks.families.working.slips import SLIP_PROBABILITY, Slips
from ponder.tasks.protocol import Demonstration, Fold, Problem

GYM = ("State the final answer to the following arithmetic problem: {chain} =",)
VARIED = ("What is {chain}?", "Calculate {chain}.", "{chain} =", "Work out {chain}.", "How much is {chain}?")


class DecimalChainSum(ProblemFamily):
    """Level sets the terms: two to six, of one to four digits and decimal places (the default config); above level 0.5
    five to eight, of four to eight digits and four to six places (its hard config). Longer ones fold after every
    addition."""

    name = "decimal_chain_sum"
    default_level = 0.5

    def sample(self, rng: Random, level: float) -> Problem:
        hard, level = beyond(level, self.default_level)
        if hard:
            num_terms, digits, places = size_at(level, 5, 8), rng.randint(4, 8), (4, 6)
        else:
            num_terms, digits, places = size_at(level, 2, 6), rng.randint(1, 4), (1, 4)
        terms = [
            f"{number_of_digits(rng, digits)}.{number_of_digits(rng, rng.randint(*places))}" for _ in range(num_terms)
        ]
        chain = terms[0] + "".join(f" {rng.choice('+-')} {term}" for term in terms[1:])
        return self.problem(self.word(rng, GYM, VARIED), chain)

    def problem(self, template: str, chain: str) -> Problem:
        """The problem of a chain of decimals and signs, parted by spaces."""
        with localcontext(DefaultContext):  # whatever precision another library has set in this process
            answer = str(sum(map(Decimal, signed(chain)), Decimal(0)))
        return Problem(task=self.name, question=template.format(chain=chain), answer=answer, metadata={"chain": chain})

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        terms = signed(str(problem.metadata["chain"]))
        places = 4 if all(len(term.split(".")[1]) <= 4 for term in terms) else 6
        padded = [term + "0" * (places - len(term.split(".")[1])) for term in terms]
        whole = [int(term.replace(".", "")) for term in padded]
        head = "".join(f" {LABELS[i]}{term}" for i, term in enumerate(padded)) + "\n"
        longest = max(len(str(abs(term))) for term in whole)
        slips = Slips(rng, SLIP_PROBABILITY, longest * len(terms))
        folds: list[Fold] = []
        if longest > 8 or len(terms) > 6:
            lines, total, folds = folded_sum(whole, slips)
            folds[0] = Fold(head, folds[0].state)
        else:
            lines, total = signed_sum(whole, slips)
            lines[0] = head + lines[0]
        digits = str(abs(total)).rjust(places + 1, "0")
        answer = f"{'-' if total < 0 else ''}{digits[:-places]}.{digits[-places:]}"
        return Demonstration(reasoning="\n".join([*lines, answer]), answer=answer, folds=tuple(folds))


def signed(chain: str) -> list[str]:
    """`12.5 - 3.25` as `+12.5`, `-3.25`."""
    tokens = ["+", *chain.split()]
    return [sign + term for sign, term in zip(tokens[::2], tokens[1::2], strict=True)]


def folded_sum(whole: list[int], slips: Slips) -> tuple[list[str], int, list[Fold]]:
    """`signed_sum`, an addition a context: the state is the terms that are left, the sum under the first one's label.

    The first two terms to add, or else to take away, are summed; the last two of different sign are subtracted.
    Returns the last thought's lines, the value and the folds; the first only writes the terms lowest digit first.
    """
    terms = {f"{LABELS[i]}{'-' if term < 0 else '+'}": lowest_first(abs(term)) for i, term in enumerate(whole)}
    folds = [Fold("", terms_text(terms))]
    while True:
        plus, minus = ([name for name in terms if name[1] == sign] for sign in "+-")
        if len(plus) == len(minus) == 1:
            return difference(terms[plus[0]], terms[minus[0]], slips)[0], sum(whole), folds
        first, second, *_ = plus if len(plus) > 1 else minus
        line, total = add(terms[first], terms[second], slips)
        line = f"{terms[first]} {second}{terms[second]}: {line.split(': ', 1)[1]}"
        del terms[second]
        terms[first] = total
        if len(terms) == 1:
            return [line], sum(whole), folds
        folds.append(Fold(line, terms_text(terms)))


def terms_text(terms: dict[str, str]) -> str:
    """The terms with their labels and signs, ` a+5432 b-001`."""
    return "".join(f" {name}{digits}" for name, digits in terms.items())
