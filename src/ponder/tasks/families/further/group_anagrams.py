"""Words grouped by their letters: every word is spelled, its letters are put in order, and like orders get one number.

`vacate: v a c a t e > a a c e t v 2` belongs to the second group.
"""

from __future__ import annotations

import json
from random import Random

from ponder.tasks.families.working.family import FromGym
from ponder.tasks.protocol import Demonstration, Grade, GradeStatus, Problem


class GroupAnagrams(FromGym):
    """Two to four groups, then up to ten groups of up to five (the default config)."""

    name = gym_name = "group_anagrams"
    configs = ({"max_anagram_groups": 4}, {})

    def demonstrate(self, problem: Problem, rng: Random) -> Demonstration:
        groups: dict[str, list[str]] = {}
        lines = []
        for word in self.details(problem)["words"]:
            ordered = " ".join(sorted(word))
            groups.setdefault(ordered, []).append(word)
            lines.append(f"{word}: {' '.join(word)} > {ordered} {[*groups].index(ordered) + 1}")
        return Demonstration(reasoning="\n".join(lines), answer=json.dumps(list(groups.values())))

    def grade(self, problem: Problem, answer: str) -> Grade:
        """1 for the right groups, in any order."""
        try:
            given, wanted = (sorted(map(sorted, json.loads(text))) for text in (answer, problem.answer))
        except (ValueError, TypeError, RecursionError):
            return Grade(score=0.0, status=GradeStatus.UNPARSEABLE, why="the answer is not a list of lists of words")
        return Grade(score=float(given == wanted))
