"""How many keys of reasoning-gym's syllogism dataset are not valid inferences, by z3.
`python bench/syllogism_keys.py -n 1500` takes its default items, held out; `--hard` those of the hard config.
"""

from __future__ import annotations

import argparse

from ponder.evaluate.intervals import wilson
from ponder.evaluate.problems import held_out
from ponder.tasks.gym import GymTask, hard_config
from ponder.tasks.prove.syllogisms import follows_by_logic


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=1500)
    parser.add_argument("--hard", action="store_true")
    args = parser.parse_args()
    problems = held_out(GymTask("syllogism", hard_config("syllogism") if args.hard else None), args.n)
    print("| keys (shares of all items) | with members in every class | without |")
    print("|---|---|---|")
    for key in ("Yes", "No"):
        keyed = [problem for problem in problems if problem.answer == key]
        cells = []
        for members in (True, False):
            wrong = sum(follows_by_logic(each.question, members=members) != (key == "Yes") for each in keyed)
            interval = wilson(wrong, args.n)
            cells.append(
                f"{wrong} of {len(keyed)} wrong, {wrong / args.n:.3f} ({interval.low:.3f}–{interval.high:.3f})"
            )
        print(f"| {key} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
