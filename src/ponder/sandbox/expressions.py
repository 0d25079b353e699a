"""Equality of expressions by sympy, whose parser evaluates what it reads: for child processes only."""

from __future__ import annotations

from tokenize import TokenError
from typing import Any

from ponder.types import MissingExtra


def warm_expressions(_: None) -> None:
    """Import sympy and use it once, so that every child finds it ready."""
    compare_expressions({"answer": "2*(x+1)", "gold": "2x + 2"})


def parse_expression(text: str) -> Any:
    """A sympy expression; an equation a = b becomes a - b. `^` is a power, 2x is a product."""
    try:
        from sympy.parsing.sympy_parser import (
            convert_xor,
            implicit_multiplication_application,
            parse_expr,
            standard_transformations,
        )
    except ImportError as error:
        raise MissingExtra("sympy", "verify") from error
    rules = (*standard_transformations, implicit_multiplication_application, convert_xor)
    left, equals, right = text.partition("=")
    if equals and "=" in right:
        raise ValueError("more than one =")
    parsed = parse_expr(left, transformations=rules)
    return parsed - parse_expr(right, transformations=rules) if equals else parsed


def compare_expressions(payload: dict[str, str]) -> dict[str, object]:
    """The grade, `{"score", "status", "why"}`, of `{"answer", "gold"}`."""
    import sympy

    gold = parse_expression(payload["gold"])
    try:
        answer = parse_expression(payload["answer"])
        difference = sympy.simplify(answer - gold)
    except (
        TokenError,
        SyntaxError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
        sympy.SympifyError,
    ) as error:
        return {"score": 0.0, "status": "unparseable", "why": f"no expression: {error}"}
    equations = [side for side in (payload["answer"], payload["gold"]) if "=" in side]
    if len(equations) == 1:
        return {"score": 0.0, "why": "one is an equation, the other is not"}
    equal = difference == 0 or (bool(equations) and bool(sympy.simplify(answer + gold) == 0))
    return {"score": 1.0 if equal else 0.0, "why": "" if equal else f"the difference is {str(difference)[:200]}"}
