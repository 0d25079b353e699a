"""Whether a conclusion follows from two statements: terms get letters, then the rules are gone through one by one.

The rules are the dataset's own, so that its answers are met: the two-negatives and two-particulars rules and the
distribution of the conclusion's ends. It does not ask whether the middle term is distributed, so it also calls some
conclusions valid that logic does not (all a are b, some b are c: some a are c).
"""

from __future__ import annotations

from random import Random

from ponder.tasks.families.working.family import ProblemFamily
from ponder.tasks.families.working.slips import noticed_slip
from ponder.tasks.graders import exact
from ponder.tasks.protocol import Demonstration, Grade, Problem

GYM = (
    "Consider these statements:\n1. {first}\n2. {second}\n\nDoes it logically follow that:\n{conclusion}?\n"
    "(Answer Yes or No)",
)
VARIED = (
    "{first}. {second}. Does it follow that: {conclusion}? Yes or No?",
    "Suppose:\n1. {first}\n2. {second}\nIs it then true that: {conclusion}? Answer Yes or No.",
)
TERMS = (
    "mortals humans children adults parents grandparents philosophers students teachers doctors scientists artists "
    "musicians writers programmers engineers lawyers chefs animals mammals dogs cats birds fish reptiles insects "
    "butterflies bees ants spiders horses elephants lions tigers whales dolphins"
)
ALL, NO, SOME, SOME_NOT = "all", "no", "some", "some not"
QUANTIFIERS = (ALL, NO, SOME, SOME_NOT)
NEGATIVE, PARTICULAR = (NO, SOME_NOT), (SOME, SOME_NOT)
TURNED = {ALL: SOME, NO: NO, SOME: SOME, SOME_NOT: "nothing"}
TURNED_SHARE, INVALID_SHARE = 0.3, 0.4


class Syllogism(ProblemFamily):
    """Levels below a half have only `all` and `no` (the hard config); above, all four kinds (the default config)."""

    name = "syllogism"

    def sample(self, rng: Random, level: float) -> Problem:
        kinds = QUANTIFIERS[:2] if level < 0.5 else QUANTIFIERS
        terms = rng.sample(TERMS.split(), 3)
        valid = rng.random() >= INVALID_SHARE
        turned = rng.choice((1, 2)) if rng.random() < TURNED_SHARE else 0  # which statement is turned round; 0: none
        while True:
            first, second = rng.choice(kinds), rng.choice(kinds)
            if turned:
                asked = rng.choice((ALL, NO, SOME))
                right = TURNED[(first, second)[turned - 1]] == asked
                subject, predicate = terms[turned], terms[turned - 1]
            else:
                asked = rng.choice(kinds)
                right = not any(verdict == "no" for _, verdict in rules(first, second, asked))
                subject, predicate = terms[0], terms[2]
            if right == valid:
                break
        question = self.word(rng, GYM, VARIED).format(
            first=sentence(first, terms[0], terms[1]),
            second=sentence(second, terms[1], terms[2]),
            conclusion=sentence(asked, subject, predicate),
        )
        return Problem(
            task=self.name,
            question=question,
            answer="Yes" if valid else "No",
            metadata={"quantifiers": [first, second, asked], "terms": terms, "turned": turned},
        )

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        first, second, asked = problem.metadata["quantifiers"]
        turned: int = problem.metadata["turned"]
        a, b, c = (f"{term} {letter}" for term, letter in zip(problem.metadata["terms"], "abc", strict=True))
        lines = [f"1 {first} {a} {b}", f"2 {second} {b} {c}"]
        if turned:
            premise = (first, second)[turned - 1]
            ends = "b a" if turned == 1 else "c b"
            verdict = "ok" if TURNED[premise] == asked else "no"
            lines.append(f"? {asked} {b} {a}" if turned == 1 else f"? {asked} {c} {b}")
            lines.append(f"turn {turned} {premise}: {TURNED[premise]} {ends}, asked {asked} {verdict}")
        else:
            lines.append(f"? {asked} {a} {c}")
            for text, verdict in rules(first, second, asked):
                lines.append(f"{noticed_slip(text, 'one|every', ('one', 'every'), rng)} {verdict}")
                if verdict == "no":
                    break
        return Demonstration(reasoning="\n".join([*lines, problem.answer]), answer=problem.answer)

    def grade(self, problem: Problem, answer: str) -> Grade:
        return exact(problem.answer, answer)


def rules(first: str, second: str, asked: str) -> list[tuple[str, str]]:
    """The rules for `first` a b, `second` b c, `asked` a c: what each looks at, and ok or no."""
    given, wanted = (sign(first), sign(second)), sign(asked)
    signs_hold = wanted == ("-" if "-" in given else "+") and given != ("-", "-")
    num_particular = (first in PARTICULAR) + (second in PARTICULAR)
    sizes_hold = num_particular == 0 or (num_particular == 1 and asked in PARTICULAR)
    # The conclusion's predicate c is also the second statement's: a negative speaks of all of it.
    spread_holds = wanted == "+" or given[1] == "-"
    return [
        (f"signs {given[0]} {given[1]} so {wanted}", "ok" if signs_hold else "no"),
        (f"sizes {size(first)} {size(second)} so {size(asked)}", "ok" if sizes_hold else "no"),
        (f"c from {given[1]} so {wanted}", "ok" if spread_holds else "no"),
    ]


def sign(quantifier: str) -> str:
    return "-" if quantifier in NEGATIVE else "+"


def size(quantifier: str) -> str:
    return "one" if quantifier in PARTICULAR else "every"


def sentence(quantifier: str, subject: str, predicate: str) -> str:
    if quantifier == SOME_NOT:
        return f"Some {subject} are not {predicate}"
    return f"{quantifier.capitalize()} {subject} are {predicate}"
