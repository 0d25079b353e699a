"""Sums and differences of two to eight numbers of one to six digits."""

from __future__ import annotations

from random import Random

from ponder.tasks.families.working.columns import lowest_first, signed_sum
from ponder.tasks.families.working.family import ProblemFamily, beyond, number_of_digits, size_at
from ponder.tasks.families.working.lanes import spoken, wait_for
from ponder.tasks.families.working.slips import SLIP_PROBABILITY, Slips
from ponder.tasks.protocol import Demonstration, Problem

GYM = ("State the final answer to the following arithmetic problem: {chain} =",)
VARIED = ("What is {chain}?", "Calculate {chain}.", "{chain} =", "Work out {chain}.", "How much is {chain}?", "{chain}")


class ChainSum(ProblemFamily):
    """Level sets the terms; the digits are drawn evenly, all terms alike: one to four up to level 0.5 (the default
    config), four to six above (its hard config)."""

    name = "chain_sum"
    default_level = 0.5

    def sample(self, rng: Random, level: float) -> Problem:
        hard, level = beyond(level, self.default_level)
        if hard:
            num_terms, digits = size_at(level, 5, 8), rng.randint(4, 6)
        else:
            num_terms, digits = size_at(level, 2, 6), rng.randint(1, 4)
        template = self.word(rng, GYM, VARIED)
        mixed = template not in GYM and rng.random() < 0.3
        terms = [number_of_digits(rng, rng.randint(1, digits) if mixed else digits) for _ in range(num_terms)]
        terms = terms[:1] + [term * rng.choice((1, -1)) for term in terms[1:]]
        # A subtracted zero has lost its sign: write it as an addition.
        chain = str(terms[0]) + "".join(f" {'-' if term < 0 else '+'} {abs(term)}" for term in terms[1:])
        return Problem(
            task=self.name, question=template.format(chain=chain), answer=str(sum(terms)), metadata={"terms": terms}
        )

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        terms: list[int] = problem.metadata["terms"]
        num_steps = sum(len(str(abs(term))) for term in terms[1:])
        lines, total = signed_sum(terms, Slips(rng, SLIP_PROBABILITY, num_steps))
        return Demonstration(reasoning="\n".join([*lines, str(total)]), answer=str(total))

    def demonstrate_council(self, problem: Problem, rng: Random, voices: int) -> Demonstration:
        """Voice v sums terms v, v + V and so on, and ends with the sum, lowest digit first; the first voice waits for
        the others, and sums their sums."""
        terms: list[int] = problem.metadata["terms"]
        none = Slips(rng, 0, 0)
        if voices == 1:
            lines, total = signed_sum(terms, none)
            return Demonstration(reasoning="\n".join([*lines, str(total)]), answer=str(total))
        lanes, sums, first = [], [], 0
        for own in (terms[voice::voices] for voice in range(voices)):
            lines, total = signed_sum(own, none, first=first)
            lanes.append("\n".join([*lines, f"={_signed(total)}"]) if own else "")
            sums += [total] if own else []
            first += len(own)
        lines, total = signed_sum(sums, none, first=first)
        lanes[0] = "\n".join([wait_for(lanes[0], max(map(len, lanes[1:])) - 1), *lines])
        return Demonstration(opening="", voices=spoken(lanes, [0]), reasoning=str(total), answer=str(total))


def _signed(number: int) -> str:
    return f"{'-' if number < 0 else '+'}{lowest_first(abs(number))}"
