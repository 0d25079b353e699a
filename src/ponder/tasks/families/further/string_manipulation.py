"""Strings rewritten by rules: every string with its places numbered, then the rules in order to the first that fits.

`1 starts ab no, 2 ends ac yes` ends in the string that rule 2 makes. Where that string was there before, it is `seen`,
and the one before it is the answer; where no rule fits, `none` says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from random import Random

from ponder.tasks.families.working.family import FromGym
from ponder.tasks.graders import exact
from ponder.tasks.gym import gym_dataset
from ponder.tasks.protocol import Demonstration, Grade, Problem

LONGEST = 15
"""A rule looks for strings longer than this."""


class StringManipulation(FromGym):
    """Five to ten letters and three to five rules, then up to twenty and eight (the default config)."""

    name = gym_name = "string_manipulation"
    configs = ({"max_string_length": 10, "max_num_rules": 5}, {})

    def teaches(self, problem: Problem) -> bool:
        """Not where nothing is left, and not the few that go on for more than a dozen strings."""
        return problem.answer != "" and len(self.details(problem)["states"]) <= 12

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        details = self.details(problem)
        rules: list[str] = details["selected_rules"]
        string, lines, met = str(details["string"]), [], set[str]()
        while True:
            met.add(string)
            lines.append(_numbered(string))
            looks, after = _looks(rules, string)
            lines.append(", ".join(looks))
            if after in met or after is None:
                lines.append(f"{after} seen" if after else "none")
                return Demonstration(reasoning="\n".join(lines), answer=string, pieces=tuple(string))
            string = after

    def grade(self, problem: Problem, answer: str) -> Grade:
        return exact(problem.answer, answer)


def _numbered(string: str) -> str:
    return " ".join(f"{letter}{place}" for place, letter in enumerate(string, 1))


def _looks(rules: list[str], string: str) -> tuple[list[str], str | None]:
    """What is looked at for each rule up to the first that fits, and the string that this makes."""
    looks = []
    for number, rule in enumerate(rules, 1):
        after, fits = _rules()[rule](string)
        looks.append(f"{number} {_looked_for(rule, string)} {'yes' if fits else 'no'}")
        if fits:
            return looks, str(after)
    return looks, None


def _looked_for(rule: str, string: str) -> str:
    """The condition of a rule in short, with what is counted for it."""
    if "even number" in rule:
        return f"even b {string.count('b')}"
    if "length" in rule:
        return f"longer {len(string)} {LONGEST}"
    found = re.search(r"'(\w+)'", rule)
    assert found is not None
    if "not at the start" in rule:
        return f"later {found[1]}"
    if re.match("If the string (?:prefix|starts)", rule):
        return f"starts {found[1]}"
    return f"ends {found[1]}" if re.match("If the string (?:suffix|ends)", rule) else f"has {found[1]}"


@cache
def _rules() -> dict[str, Callable[[str], tuple[str, int]]]:
    """The dataset's own rules by their text: a string to what it becomes, and a number that is 0 where it stays."""
    return dict(gym_dataset("string_manipulation", {}, 0)[0].rules)
