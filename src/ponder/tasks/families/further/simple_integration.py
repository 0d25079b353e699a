"""Integrals of polynomials, term by term: the exponent grows by one, and the coefficient is divided by it.

`15*x**4/7: 4+1=5, 15 5 by 5: 3 1, 7*1=7, 3*x**5/7` takes from 15 and 5 what they share, and multiplies what is left of
the 5 into the denominator.
"""

from __future__ import annotations

import re
from math import gcd
from random import Random

from ponder.tasks.families.working.family import ScoredByGym
from ponder.tasks.protocol import Demonstration, Problem

_TERM = re.compile(r"(?P<sign>-?)(?:(?P<above>\d+)\*?)?(?P<power>[xX](?:\*\*(?P<exponent>\d+))?)?(?:/(?P<below>\d+))?")


class SimpleIntegration(ScoredByGym):
    """One to three terms, then up to five (the default config, which reaches past the hard one)."""

    name = gym_name = "simple_integration"
    configs = ({"min_terms": 1, "max_terms": 3}, {})

    def teaches(self, problem: Problem) -> bool:
        """Not where all terms cancel."""
        return bool(self.details(problem)["integrand"] != "0")

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        details = self.details(problem)
        lines, answer = [], ""
        for term in _terms(details["integrand"]):
            line, integral = _integrated(term, details["variable"])
            lines.append(line)
            sign, size = ("-", integral[1:]) if integral.startswith("-") else ("+", integral)
            answer += f" {sign} {size}" if answer else integral
        return Demonstration(reasoning="\n".join(lines), answer=f"{answer} + C")


def _terms(polynomial: str) -> list[str]:
    """The terms with their signs: `9*x**8`, `-x/2`."""
    return re.sub(r" ([+-]) ", r" \1", polynomial).replace("+", "").split()


def _integrated(term: str, variable: str) -> tuple[str, str]:
    """The line of one term, and its integral."""
    found = _TERM.fullmatch(term)
    assert found is not None, term
    above, below = int(found["above"] or 1), int(found["below"] or 1)
    exponent = int(found["exponent"] or 1) if found["power"] else 0
    grown = exponent + 1
    shared = gcd(above, grown)
    top, rest = above // shared, grown // shared
    bottom = below * rest
    power = variable if grown == 1 else f"{variable}**{grown}"
    integral = f"{'-' if found['sign'] == '-' else ''}{'' if top == 1 else f'{top}*'}{power}"
    integral += "" if bottom == 1 else f"/{bottom}"
    return (
        f"{term}: {exponent}+1={grown}, {above} {grown} by {shared}: {top} {rest}, {below}*{rest}={bottom}, {integral}",
        integral,
    )
