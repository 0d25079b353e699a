"""Long division by a small number, highest digit first, one digit a step.

    4871/17: 48:2=34+14 147:8=136+11 111:6=102+9

48 holds 17 twice, 48 = 34 + 14. A step's number is the remainder before it with the next digit behind; the first has as
many digits as the divisor.
"""

from __future__ import annotations

from ponder.tasks.families.slips import Slips


def divide(number: int, divisor: int, slips: Slips) -> str:
    """The line of the working. The quotient's digits, leading zeros included, stand between `:` and `=`."""
    digits = str(number)
    first = min(len(digits), len(str(divisor)))
    steps, remainder = [], ""
    for digit in (digits[:first], *digits[first:]):
        top = remainder + digit
        quotient, rest = divmod(int(top), divisor)
        remainder = str(rest)
        steps.append(f" {top}:{quotient}={quotient * divisor}+{slips.result(remainder)}")
    return f"{number}/{divisor}:{''.join(steps)}"
