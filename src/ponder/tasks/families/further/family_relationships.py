"""How two people of a family are related: what the story says of each, then of the second one's parents, then the word.

Where the key names the other way round (a niece is called by her uncle's sex, a daughter-in-law a mother-in-law), the
item is not one to learn from.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

from ponder.tasks.families.working.family import FromGym
from ponder.tasks.graders import exact
from ponder.tasks.protocol import Demonstration, Grade, Problem

WRONG_KEYS = ("niece", "nephew", "mother-in-law", "father-in-law")
WOMEN = ("mother", "daughter", "wife", "sister", "grandmother", "aunt")


@dataclass(frozen=True, slots=True)
class Story:
    """Who is married to whom, and who is whose child."""

    married: dict[str, str]
    parents: dict[str, tuple[str, str]]

    def said_of(self, person: str) -> str:
        parents = " and ".join(self.parents.get(person, ("none",)))
        return f"{person}: child of {parents}, married to {self.married.get(person, 'none')}"


class FamilyRelationships(FromGym):
    """Three to five people, four to eight (the default config), then up to nine (the hard one)."""

    name = gym_name = "family_relationships"
    configs = ({"min_family_size": 3, "max_family_size": 5}, {}, {"min_family_size": 5, "max_family_size": 9})
    default_level = 0.66

    def teaches(self, problem: Problem) -> bool:
        return problem.answer not in WRONG_KEYS

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        details = self.details(problem)
        first, second = details["person1"], details["person2"]
        story = read_story(problem.question)
        lines = [f"{first} to {second}", story.said_of(first), story.said_of(second)]
        of_first, of_second = (story.parents.get(person, ()) for person in (first, second))
        if first in of_second:
            why = f"{first} parent of {second}"
        elif second in of_first:
            why = f"{second} parent of {first}"
        elif story.married.get(first) == second:
            why = f"{first} married to {second}"
        elif of_first and of_first == of_second:
            why = "same parents"
        else:
            lines += [story.said_of(parent) for parent in of_second]
            above = {parent: story.parents.get(parent, ()) for parent in of_second}
            parent = next(each for each in of_second if first in above[each] or (of_first and above[each] == of_first))
            link = "parent of" if first in above[parent] else "same parents as"
            why = f"{first} {link} {parent}, {parent} parent of {second}"
        sex = "woman" if problem.answer in WOMEN else "man"
        lines.append(f"{why}, {first} {sex}, {problem.answer}")
        return Demonstration(reasoning="\n".join(lines), answer=problem.answer)

    def grade(self, problem: Problem, answer: str) -> Grade:
        return exact(problem.answer, answer, ignore_case=True)


def read_story(text: str) -> Story:
    """The marriages of a story, and the children of each couple."""
    married: dict[str, str] = {}
    parents: dict[str, tuple[str, str]] = {}
    for one, other, children in re.findall(
        r"(\w+) is married to (\w+)\.(?: They have (?:a child|children) called ([\w, ]+)\.)?", text
    ):
        married |= {one: other, other: one}
        for child in re.findall(r"\w+", children.replace(" and ", ", ")):
            parents[child] = (one, other)
    return Story(married, parents)
