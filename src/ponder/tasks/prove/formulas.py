"""Formulas and declarations as text: `all x: person. honest(x) -> tall(x)`, read by a grammar."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ponder.tasks.prove.logic import (
    BOOL,
    COUNTING,
    INT,
    MAX_DIGITS_OF_NUMBER,
    ORDERS,
    THING,
    Applied,
    Binder,
    BoundVariable,
    Formula,
    LogicError,
    Numeral,
    Operation,
    Quantified,
    Signature,
    Typing,
    check_depth,
)

TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<number>[0-9]+)|(?P<name>[^\W\d]\w*)|(?P<sign><->|<=>|->|=>|<=|>=|!=|[-+*=<>(),.:|&~∀∃∧∨¬→↔⇒⇔≤≥≠])"
)
SPELLED = {
    "<=>": "<->", "↔": "<->", "⇔": "<->", "iff": "<->",
    "=>": "->", "→": "->", "⇒": "->", "implies": "->",
    "|": "or", "∨": "or", "&": "and", "∧": "and", "~": "not", "¬": "not",
    "≠": "!=", "≤": "<=", "≥": ">=",
    "∀": "all", "forall": "all", "∃": "some", "exists": "some",
}  # fmt: skip
WORDS = {"and", "or", "not", "all", "some", "at", "exactly", *filter(str.isalpha, SPELLED)}
DECLARATION = re.compile(r"(?P<kind>sort|predicate|function|constant|names)\s+(?P<rest>.*)", re.DOTALL)
MAX_NESTED = 40  # brackets, quantifiers and negations inside each other
NAME = re.compile(r"[^\W\d]\w*")


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    at: int
    kind: str


def parse_formula(text: str, at: int = 0) -> Formula:
    """The formula that `text` is.

    at: where the text begins in its document, for the place in errors.
    Raises LogicError, with the place.
    """
    reader = _Reader(_tokens(text, at), at + len(text))
    formula = reader.formula()
    if (rest := reader.peek()) is not None:
        raise LogicError(f"there is {rest.text!r} where the formula should end: put an operator before it", rest.at)
    check_depth(formula, at)
    return formula


def _tokens(text: str, at: int) -> list[_Token]:
    tokens, place = [], 0
    while place < len(text):
        match = TOKEN.match(text, place)
        if match is None:
            raise LogicError(f"{text[place]!r} has no meaning in a formula: leave it out", at + place)
        kind = match.lastgroup or ""
        if kind != "space":
            tokens.append(_Token(SPELLED.get(match[0], match[0]), at + place, kind))
        place = match.end()
    return tokens


class _Reader:
    """Recursive descent over tokens, weakest operator first."""

    def __init__(self, tokens: Sequence[_Token], end: int) -> None:
        self._tokens, self._end = tokens, end
        self._next = 0
        self._depth = 0
        self._bound: list[str] = []

    def peek(self) -> _Token | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def formula(self) -> Formula:
        self._deeper()
        left = self._implication()
        while self._take("<->"):
            left = Operation("<->", (left, self._implication()))
        self._depth -= 1
        return left

    def _deeper(self, steps: int = 1) -> None:
        self._depth += steps
        if self._depth > MAX_NESTED:
            raise LogicError(f"the formula is nested more than {MAX_NESTED} deep: split it", self._place())

    def _implication(self) -> Formula:
        parts = [self._chain("or")]
        while self._take("->"):
            parts.append(self._chain("or"))
        made = parts.pop()
        while parts:
            made = Operation("->", (parts.pop(), made))
        return made

    def _chain(self, operator: str) -> Formula:
        parts = [self._link(operator)]
        while self._take(operator):
            parts.append(self._link(operator))
        return parts[0] if len(parts) == 1 else Operation(operator, tuple(parts))

    def _link(self, operator: str) -> Formula:
        return self._chain("and") if operator == "or" else self._denial()

    def _denial(self) -> Formula:
        num_nots = 0
        while self._take("not"):
            num_nots += 1
        self._deeper(num_nots)
        inner = self._quantified() if self._at_binder() else self._comparison()
        self._depth -= num_nots
        for _ in range(num_nots):
            inner = Operation("not", (inner,))
        return inner

    def _at_binder(self) -> bool:
        token = self.peek()
        return token is not None and token.text in ("all", "some", "at", "exactly")

    def _quantified(self) -> Formula:
        binder, number = self._binder()
        variables = [self._name("a variable")]
        while self._take(","):
            variables.append(self._name("a variable"))
        sort = self._name("a sort") if self._take(":") else None
        if binder in COUNTING and len(variables) > 1:
            raise LogicError(f"'{binder}' counts one variable: write one for each", self._place())
        self._bound += variables
        self._deeper()
        body = self.formula() if self._take(".") else self._denial()
        self._depth -= 1
        del self._bound[-len(variables) :]
        for variable in reversed(variables):
            body = Quantified(binder, variable, sort, body, number)
        return body

    def _binder(self) -> tuple[Binder, int]:
        word = self._advance("a quantifier").text
        if word in ("all", "some"):
            return Binder(word), 0
        if word == "at":
            word += f" {self._advance('least or most').text}"
            if word not in ("at least", "at most"):
                raise LogicError(f"{word!r} does not count: write 'at least' or 'at most'", self._place())
        return Binder(word), self._number("how many")

    def _comparison(self) -> Formula:
        left = self._sum()
        token = self.peek()
        if token is not None and token.text in ("=", "!=", *ORDERS):
            self._next += 1
            return Operation(token.text, (left, self._sum()))
        return left

    def _sum(self) -> Formula:
        left = self._product()
        while (token := self.peek()) is not None and token.text in ("+", "-"):
            self._next += 1
            left = Operation(token.text, (left, self._product()))
        return left

    def _product(self) -> Formula:
        left = self._signed()
        while self._take("*"):
            left = Operation("*", (left, self._signed()))
        return left

    def _signed(self) -> Formula:
        if self._take("-"):
            inner = self._primary()
            return Numeral(-inner.value) if isinstance(inner, Numeral) else Operation("-", (inner,))
        return self._primary()

    def _primary(self) -> Formula:
        if self._take("("):
            inner = self.formula()
            self._expect(")")
            return inner
        token = self.peek()
        if token is not None and token.kind == "number":
            return Numeral(self._number("a number"))
        name = self._name("a name, a number or a bracket")
        if not self._take("("):
            return BoundVariable(name) if name in self._bound else Applied(name)
        args = [self.formula()]
        while self._take(","):
            args.append(self.formula())
        self._expect(")")
        return Applied(name, tuple(args))

    def _number(self, what: str) -> int:
        token = self._advance(what)
        if token.kind != "number":
            raise LogicError(f"there is {token.text!r} where {what} should stand: write a whole number", token.at)
        if len(token.text) > MAX_DIGITS_OF_NUMBER:
            raise LogicError(f"a number has {len(token.text)} digits: give at most {MAX_DIGITS_OF_NUMBER}", token.at)
        return int(token.text)

    def _name(self, what: str) -> str:
        token = self._advance(what)
        if token.kind != "name" or token.text in WORDS:
            raise LogicError(f"there is {token.text!r} where {what} should stand: write one there", token.at)
        return token.text

    def _advance(self, what: str) -> _Token:
        token = self.peek()
        if token is None:
            raise LogicError(f"the formula ends where {what} should stand: finish it", self._end)
        self._next += 1
        return token

    def _take(self, text: str) -> bool:
        token = self.peek()
        if token is None or token.text != text:
            return False
        self._next += 1
        return True

    def _expect(self, text: str) -> None:
        if not self._take(text):
            token = self.peek()
            found = "the formula ends" if token is None else f"there is {token.text!r}"
            raise LogicError(f"{found} where {text!r} should stand: put it there", self._place())

    def _place(self) -> int:
        token = self.peek()
        return self._end if token is None else token.at


# Declarations ---------------------------------------------------------------------------------------------------------


class Declarations:
    """What a text declares, line by line."""

    def __init__(self) -> None:
        self.sorts: dict[str, tuple[str, ...]] = {}
        self.symbols: dict[str, Typing] = {}
        self.names: set[str] = set()

    def read(self, line: str, at: int) -> bool:
        """Read the line, if it is a declaration. at: where it begins. Raises LogicError for one that is malformed."""
        match = DECLARATION.fullmatch(line.strip())
        if match is None:
            return False
        kind, rest = match["kind"], match["rest"].strip()
        left, separator, right = (part.strip() for part in rest.partition("=" if kind == "sort" else ":"))
        name, bracket, inside = left.partition("(")
        args = tuple(part.strip() for part in inside.removesuffix(")").split(",")) if bracket else ()
        shapes = {
            "sort": not bracket,
            "names": bool(separator) and not bracket,
            "predicate": not separator,
            "function": bool(bracket and separator),
            "constant": bool(separator) and not bracket,
        }
        if not shapes[kind] or (bracket and not left.endswith(")")):
            raise LogicError(f"this is not a declaration of a {kind}: write it like `{EXAMPLES[kind]}`", at)
        if kind in ("sort", "names"):
            members = tuple(part.strip() for part in (right if kind == "sort" else name).split(",") if part.strip())
            self._declare_members(right if kind == "names" else name.strip(), members, kind, at)
            return True
        self._new(name.strip(), at)
        for each in args + ((right,) if separator else ()):
            if each not in (INT, BOOL, THING, *self.sorts):
                raise LogicError(f"there is no sort {each!r}: declare it in a line before this one", at)
        self.symbols[name.strip()] = Typing(args, right if separator else BOOL)
        return True

    def signature(self, more_sorts: dict[str, tuple[str, ...]], names: set[str]) -> Signature:
        """more_sorts, names: those that controlled English lists, and the names in it."""
        return Signature({**self.sorts, **more_sorts}, dict(self.symbols), frozenset(self.names | names))

    def _declare_members(self, sort: str, members: tuple[str, ...], kind: str, at: int) -> None:
        if kind == "sort":
            self._new(sort, at)
        elif self.sorts.get(sort, () if sort == THING else None) != ():
            raise LogicError(f"{sort!r} is not an open sort: declare it as `sort {sort}` before its names", at)
        for place, member in enumerate(members):
            self._new(member, at)
            if member in members[:place] or (kind == "sort" and member == sort):
                raise LogicError(f"{member} is declared twice: give the second one another name", at)
        if kind == "sort":
            self.sorts[sort] = members
        else:
            self.symbols |= dict.fromkeys(members, Typing((), sort))
            self.names.update(members)

    def _new(self, name: str, at: int) -> None:
        if not NAME.fullmatch(name) or name in WORDS or name in (INT, BOOL):
            raise LogicError(f"{name!r} cannot be a name: use letters, digits and _, and begin with a letter", at)
        if name in self.sorts or name in self.symbols or any(name in members for members in self.sorts.values()):
            raise LogicError(f"{name} is declared twice: give the second one another name", at)


EXAMPLES = {
    "sort": "sort person = Ann, Bo",
    "names": "names Ann, Bo: person",
    "predicate": "predicate likes(person, person)",
    "function": "function age(person): int",
    "constant": "constant n: int",
}
