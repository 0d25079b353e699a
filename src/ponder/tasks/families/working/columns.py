"""Column arithmetic in the smallest steps: one digit at a time, lowest digit first, carries and borrows written out.

Every step is an equation that can be checked by itself:

    8*7+0+5=61      digit times digit, plus the running sum's digit, plus the carry
    8+4+1=13        digit plus digit plus the carry; the tens digit is the next carry
    14-9-1=4        digit minus digit minus the borrow; a leading 1 is the ten that was borrowed

A run of digits written lowest first stands after `>` or on a separate line.
"""

from __future__ import annotations

from collections.abc import Sequence

from ponder.tasks.families.working.slips import Slips

LABELS = "abcdefghijklmnopqrstuvwxyz"


def lowest_first(number: int, width: int = 0) -> str:
    """The digits of a non-negative number, lowest first, padded with zeros on the high side."""
    return str(number)[::-1].ljust(width, "0")


def highest_first(digits: str) -> str:
    """A lowest-first run as an ordinary numeral, without leading zeros."""
    return digits[::-1].lstrip("0") or "0"


def times_digit_onto(a: str, digit: str, onto: str, slips: Slips) -> tuple[str, str]:
    """One row of long multiplication: a * digit + onto, all lowest first.

    `onto` has the length of `a` (the running sum above this row). Returns the steps and the sum's digits
    (one longer than `a`).
    """
    steps, digits, carry = [], "", "0"
    for a_i, s_i in zip(a, onto, strict=True):
        result = f"{int(a_i) * int(digit) + int(s_i) + int(carry):02d}"
        steps.append(f"{a_i}*{digit}+{s_i}+{carry}={slips.result(result)}")
        carry, digits = result[0], digits + result[1]
    return " ".join(steps), digits + carry


def multiply(a: int, b: int, slips: Slips) -> tuple[list[str], int]:
    """Long multiplication of two non-negative numbers: the lines of the working and the product.

    Each row's lowest digit is final; the rest is what the next row adds onto.
    """
    a_digits, b_digits = lowest_first(a), lowest_first(b)
    lines = [f"{a}*{b}", f"{a_digits} {b_digits}"]
    onto, final = "0" * len(a_digits), ""
    for digit in b_digits:
        steps, row = times_digit_onto(a_digits, digit, onto, slips)
        lines.append(f"{digit}: {steps} > {row}")
        final, onto = final + row[0], row[1:]
    lines.append(f"{final}{onto}")
    return lines, a * b


def multiply_steps(a: int, b: int) -> int:
    """How many digit steps `multiply` writes."""
    return len(str(a)) * len(str(b))


def add(a: str, b: str, slips: Slips) -> tuple[str, str]:
    """a + b, lowest first: the line of the working and the sum's digits."""
    steps, digits, carry = [], "", "0"
    width = max(len(a), len(b))
    for a_i, b_i in zip(a.ljust(width, "0"), b.ljust(width, "0"), strict=True):
        result = f"{int(a_i) + int(b_i) + int(carry):02d}"
        steps.append(f"{a_i}+{b_i}+{carry}={slips.result(result)}")
        carry, digits = result[0], digits + result[1]
    digits += carry if carry != "0" else ""
    return f"{a}+{b}: {' '.join(steps)} > {digits}", digits


def subtract(a: str, b: str, slips: Slips) -> tuple[str, str]:
    """a - b for a >= b, lowest first: the line of the working and the difference's digits (as many as `a` has)."""
    steps, digits, borrow = [], "", "0"
    for a_i, b_i in zip(a, b.ljust(len(a), "0"), strict=True):
        ten = "1" if int(a_i) < int(b_i) + int(borrow) else "0"
        result = str(int(ten + a_i) - int(b_i) - int(borrow))
        steps.append(f"{ten}{a_i}-{b_i}-{borrow}={slips.result(result)}")
        borrow, digits = ten, digits + result
    return f"{a}-{b}: {' '.join(steps)} > {digits}", digits


def difference(a: str, b: str, slips: Slips) -> tuple[list[str], int]:
    """a - b of any sign, lowest first: lines and value. Nothing is compared: where the last column borrows a ten that
    does not exist, the line ends in `less`, and the subtraction is done the other way round."""
    width = max(len(a), len(b))
    a, b = a.ljust(width, "0"), b.ljust(width, "0")
    value = int(a[::-1]) - int(b[::-1])
    line, _ = subtract(a, b, slips)
    if value >= 0:
        return [line], value
    return [line.split(" >")[0] + " less", subtract(b, a, slips)[0]], value


def signed_sum(terms: Sequence[int], slips: Slips, *, first: int = 0) -> tuple[list[str], int]:
    """The sum of signed terms: what to add and what to take away are summed apart, then the one from the other.

    Every term has a label in the first line, ` a+4321 b-8765`; the line that takes it in names it again.
    first: the number of the first label.
    """
    named = [
        (" " + LABELS[first + i] + ("-" if term < 0 else "+") + lowest_first(abs(term)), term)
        for i, term in enumerate(terms)
    ]
    lines = ["".join(name for name, _ in named)]
    sums = []
    for group in ([name for name, t in named if t >= 0], [name for name, t in named if t < 0]):
        digits = group[0][3:] if group else ""
        for name in group[1:]:
            line, longer = add(digits, name[3:], slips)
            lines.append(f"{digits}{name}: {line.split(': ', 1)[1]}")
            digits = longer
        sums.append(digits)
    plus, minus = sums
    if plus and minus:
        lines += difference(plus, minus, slips)[0]
    return lines, sum(terms)


def divide(number: int, divisor: int, slips: Slips) -> str:
    """Long division by a small number, highest digit first: `4871/17: 48:2=34+14 147:8=136+11 111:6=102+9`.

    48 holds 17 twice, and 48 = 34 + 14. A step's number is the remainder before it with the next digit appended; the
    first has as many digits as the divisor. The quotient's digits, with leading zeros, stand between `:` and `=`.
    """
    digits = str(number)
    first = min(len(digits), len(str(divisor)))
    steps, remainder = [], ""
    for digit in (digits[:first], *digits[first:]):
        top = remainder + digit
        quotient, rest = divmod(int(top), divisor)
        remainder = str(rest)
        steps.append(f" {top}:{quotient}={quotient * divisor}+{slips.result(remainder)}")
    return f"{number}/{divisor}:{''.join(steps)}"
