"""Letters numbered by how often each has been met, so that a multiset is looked up instead of counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


def numbered(letters: Iterable[str]) -> list[str]:
    """`banana` is b1 a1 n1 a2 n2 a3."""
    met: Counter[str] = Counter()
    names = []
    for letter in letters:
        met[letter] += 1
        names.append(f"{letter}{met[letter]}")
    return names
