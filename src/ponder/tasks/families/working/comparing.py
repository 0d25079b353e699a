"""Comparing and sorting in the smallest steps: place by place, and one item at a time put into the sorted list.

Two keys of one width stand side by side, and after them one verdict per place until they differ: ` = = <`. The two
characters that a verdict compares always stand at the same distances before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

COMPLEMENT = str.maketrans("0123456789", "9876543210")


def verdicts(a: Sequence[str], b: Sequence[str]) -> str:
    """Place by place ` =`, until the first ` <` or ` >`."""
    found = ""
    for x, y in zip(a, b, strict=True):
        found += " =" if x == y else " <" if x < y else " >"
        if x != y:
            break
    return found


def number_key(numeral: str, decimals: int) -> str:
    """A numeral from -100 to 100 as digits that compare like the numbers: `-37.5` is 16249, `4.5` is 20450.

    First 1 for a negative number, 2 for another (0 and 3 for -100 and 100 themselves), then two digits before the point
    and `decimals` after it; a negative number's digits are taken from 9, so that the larger amount is the smaller key.
    """
    whole, _, fraction = numeral.lstrip("-").partition(".")
    digits = whole.zfill(2) + fraction.ljust(decimals, "0")
    negative = numeral.startswith("-") and digits.strip("0") != ""
    if len(whole) > 2:
        return ("0" if negative else "3") + "0" * (decimals + 2)
    return "1" + digits.translate(COMPLEMENT) if negative else "2" + digits


def insertions(
    labels: Sequence[str], compare: Callable[[str, str], str], order: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
    """Insertion sort: a line for every label, and the labels in rising order.

    compare: the text that compares two labels' items, ending in the verdict. `order` has the labels sorted before.
    A line compares with the sorted ones from the smallest on, until one is not smaller, and ends in the new order.
    """
    lines, sorted_labels = [], list(order)
    for label in labels:
        line, place = "", 0
        for other in sorted_labels:
            line += compare(label, other)
            if not line.endswith(">"):
                break
            place += 1
        sorted_labels.insert(place, label)
        lines.append(f"{line} so{''.join(sorted_labels)}")
    return lines, sorted_labels
