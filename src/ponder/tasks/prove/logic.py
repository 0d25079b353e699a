"""The typed logic: formulas as a small tree, the types of their symbols, and their text (docs/logic.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ponder.types import InvalidRequest

INT, BOOL, THING = "int", "bool", "thing"
ORDERS = ("<", "<=", ">", ">=")
COMPARISONS = ("=", "!=", *ORDERS)
ARITHMETIC = ("+", "-", "*")
CONNECTIVES = ("not", "and", "or", "->", "<->")
MAX_NODES = 10_000  # of all formulas, quantifiers over listed sorts written out
MAX_DIGITS_OF_NUMBER = 1_000
MAX_DEPTH = 150  # of one formula's tree


class LogicError(InvalidRequest):
    """A text that is not in the logic, or whose types do not agree.

    at: where in the text, in characters; None: it is about the text as a whole.
    """

    def __init__(self, message: str, at: int | None = None) -> None:
        super().__init__(message)
        self.at = at


class Binder(StrEnum):
    """What binds a variable. The last three count, over a sort whose members are listed."""

    ALL = "all"
    SOME = "some"
    AT_LEAST = "at least"
    AT_MOST = "at most"
    EXACTLY = "exactly"


COUNTING = (Binder.AT_LEAST, Binder.AT_MOST, Binder.EXACTLY)


@dataclass(frozen=True, slots=True)
class BoundVariable:
    """A variable, where it is used."""

    name: str


@dataclass(frozen=True, slots=True)
class Numeral:
    """A whole number."""

    value: int


@dataclass(frozen=True, slots=True)
class Applied:
    """A predicate or a function with its arguments; without any, a constant or a proposition."""

    name: str
    args: tuple[Formula, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """One of CONNECTIVES, COMPARISONS or ARITHMETIC. `and` and `or` take any number of arguments, `-` one or two."""

    operator: str
    args: tuple[Formula, ...]


@dataclass(frozen=True, slots=True)
class Quantified:
    """`all x: sort. body`.

    sort: None: inferred from the body.
    number: of a binder that counts.
    """

    binder: Binder
    variable: str
    sort: str | None
    body: Formula
    number: int = 0


Formula = BoundVariable | Numeral | Applied | Operation | Quantified


def negated(formula: Formula) -> Formula:
    return Operation("not", (formula,))


def conjunction(parts: list[Formula]) -> Formula:
    return parts[0] if len(parts) == 1 else Operation("and", tuple(parts))


def check_depth(formula: Formula, at: int | None = None) -> None:
    """Raises LogicError for a formula that is too deep to be walked."""
    pending = [(formula, 1)]
    while pending:
        each, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise LogicError(f"the formula is more than {MAX_DEPTH} operators deep: split it", at)
        if isinstance(each, Applied | Operation):
            pending.extend((part, depth + 1) for part in each.args)
        elif isinstance(each, Quantified):
            pending.append((each.body, depth + 1))


# Text -----------------------------------------------------------------------------------------------------------------

_STRENGTH = {"<->": 1, "->": 2, "or": 3, "and": 4, "not": 5, **dict.fromkeys(COMPARISONS, 6), "+": 7, "-": 7, "*": 8}
_ATOM = 10


def formula_text(formula: Formula) -> str:
    """The formula as `formulas.parse_formula` reads it."""
    return _text(formula)[0]


def _text(formula: Formula) -> tuple[str, int]:
    """The text, and how strongly it binds."""
    match formula:
        case BoundVariable(name):
            return name, _ATOM
        case Numeral(value):
            return str(value), _ATOM if value >= 0 else 7
        case Applied(name, args):
            return (f"{name}({', '.join(map(formula_text, args))})" if args else name), _ATOM
        case Quantified(binder, variable, sort, body, number):
            counted = f" {number}" if binder in COUNTING else ""
            sorted_ = f": {sort}" if sort else ""
            return f"{binder}{counted} {variable}{sorted_}. {formula_text(body)}", 0
        case Operation("not", (inner,)):
            return f"not {_inside(inner, 5)}", 5
        case Operation("-", (inner,)):
            return f"-{_inside(inner, 9)}", 7
        case Operation(operator, args):
            own = _STRENGTH[operator]
            # On the right of an operator stands what binds more strongly, so that a - (b - c) keeps its brackets.
            texts = [_inside(args[0], own if operator in ARITHMETIC else own + 1)]
            texts += [_inside(each, own + 1) for each in args[1:]]
            return f" {operator} ".join(texts), own


def _inside(formula: Formula, least: int) -> str:
    text, strength = _text(formula)
    return text if strength >= least else f"({text})"


# Types ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Typing:
    """A symbol's types: sorts, INT or BOOL; None where not said.

    given: by a declaration; what uses it must agree.
    """

    args: tuple[str | None, ...]
    result: str | None


@dataclass(frozen=True, slots=True)
class Signature:
    """The symbols of a text.

    sorts: each sort with its members; none: an open sort, which may have any.
    symbols: predicates, functions and constants with their types.
    distinct: constants of open sorts that stand for different things, as names do.
    """

    sorts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    symbols: Mapping[str, Typing] = field(default_factory=dict)
    distinct: frozenset[str] = frozenset()


class _Types:
    """Types that are found by use: cells that are joined, each with at most one type (unification)."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._type: list[str | None] = []

    def cell(self, type: str | None = None) -> int:
        self._parent.append(len(self._parent))
        self._type.append(type)
        return len(self._parent) - 1

    def root(self, cell: int) -> int:
        while self._parent[cell] != cell:
            cell = self._parent[cell]
        return cell

    def type(self, cell: int) -> str | None:
        return self._type[self.root(cell)]

    def join(self, a: int, b: int) -> tuple[str, str] | None:
        """Make the two the same type. Returns the two types where they differ."""
        a, b = self.root(a), self.root(b)
        first, second = self._type[a], self._type[b]
        if first is not None and second is not None and first != second:
            return first, second
        self._parent[b] = a
        self._type[a] = first or second
        return None


class Typist:
    """Finds the types of all symbols and variables of a text, formula by formula, and holds each use to the others."""

    def __init__(self, declared: Signature) -> None:
        self._types = _Types()
        self._declared = declared
        self._symbols: dict[str, tuple[list[int], int]] = {}
        self._variables: dict[int, int] = {}  # cells by the identity of the binder
        self._where: dict[str, str] = {}
        self._bound: dict[str, int] = {}
        for sort, members in declared.sorts.items():
            for member in members:
                self._symbols[member] = [], self._types.cell(sort)
        for name, typing in declared.symbols.items():
            self._symbols[name] = [self._types.cell(each) for each in typing.args], self._types.cell(typing.result)

    def add(self, formula: Formula, where: str) -> None:
        """Read one more formula. where: for errors. Raises LogicError for types that do not agree."""
        self._demand(self._visit(formula, where), BOOL, formula, where)

    def signature(self) -> Signature:
        """All symbols with their types; what no use decides is of the sort `thing`."""
        symbols = {
            name: Typing(tuple(self._found(cell) for cell in args), self._found(result))
            for name, (args, result) in self._symbols.items()
            if not any(name in members for members in self._declared.sorts.values())
        }
        return Signature(self._declared.sorts, symbols, self._declared.distinct)

    def resolved(self, formula: Formula) -> Formula:
        """The formula with the sort of every variable."""
        match formula:
            case Quantified(binder, variable, _, body, number):
                sort = self._found(self._variables[id(formula)])
                return Quantified(binder, variable, sort, self.resolved(body), number)
            case Applied(name, args):
                return Applied(name, tuple(map(self.resolved, args)))
            case Operation(operator, args):
                return Operation(operator, tuple(map(self.resolved, args)))
        return formula

    def _found(self, cell: int) -> str:
        return self._types.type(cell) or THING

    def _visit(self, formula: Formula, where: str) -> int:
        """The cell of the formula's type."""
        match formula:
            case Numeral():
                return self._types.cell(INT)
            case BoundVariable(name):
                return self._bound[name]
            case Applied():
                return self._visit_applied(formula, where)
            case Quantified():
                return self._visit_quantified(formula, where)
            case Operation(operator, args):
                cells = [self._visit(each, where) for each in args]
                if operator in ("=", "!="):
                    self._join(cells[0], cells[1], formula_text(formula), where)
                    return self._types.cell(BOOL)
                wanted = BOOL if operator in CONNECTIVES else INT
                for cell, each in zip(cells, args, strict=True):
                    self._demand(cell, wanted, each, where)
                return self._types.cell(INT if operator in ARITHMETIC else BOOL)

    def _visit_applied(self, formula: Applied, where: str) -> int:
        known = self._symbols.get(formula.name)
        if known is None:
            known = [self._types.cell() for _ in formula.args], self._types.cell()
            self._symbols[formula.name] = known
        cells, result = known
        if len(cells) != len(formula.args):
            raise LogicError(
                f"{where}: {formula.name} has {len(formula.args)} arguments here and {len(cells)} "
                f"{self._where.get(formula.name, 'where it is declared')}: use it in one way, or choose another name"
            )
        self._where.setdefault(formula.name, f"in {where}")
        for cell, each in zip(cells, formula.args, strict=True):
            self._join(cell, self._visit(each, where), formula_text(each), where)
        return result

    def _visit_quantified(self, formula: Quantified, where: str) -> int:
        if formula.sort not in (None, THING, *self._declared.sorts):
            raise LogicError(f"{where}: there is no sort {formula.sort!r}: declare it, as in `sort {formula.sort}`")
        cell = self._variables[id(formula)] = self._types.cell(formula.sort)
        outer = self._bound.get(formula.variable)
        self._bound[formula.variable] = cell
        self._demand(self._visit(formula.body, where), BOOL, formula.body, where)
        if outer is None:
            del self._bound[formula.variable]
        else:
            self._bound[formula.variable] = outer
        return self._types.cell(BOOL)

    def _demand(self, cell: int, wanted: str, formula: Formula, where: str) -> None:
        self._join(cell, self._types.cell(wanted), formula_text(formula), where)

    def _join(self, a: int, b: int, what: str, where: str) -> None:
        if (differing := self._types.join(a, b)) is not None:
            first, second = map(_described, differing)
            raise LogicError(
                f"{where}: {what:.80} is {first} and {second} at once: use each name for one kind of thing"
            )


def _described(type: str) -> str:
    return {INT: "a number", BOOL: "a statement"}.get(type, f"of the sort {type}")


def check_size(formulas: list[Formula], signature: Signature) -> None:
    """Raises LogicError for formulas that are too large to solve, quantifiers over listed sorts written out, or for a
    count over an open sort."""
    size = sum(_size(each, signature) for each in formulas)
    if size > MAX_NODES:
        raise LogicError(
            f"the formulas have {size:,} parts, and at most {MAX_NODES:,} are solved: give fewer or smaller"
        )


def _size(formula: Formula, signature: Signature) -> int:
    match formula:
        case Applied(_, args) | Operation(_, args):
            return 1 + sum(_size(each, signature) for each in args)
        case Quantified(binder, _, sort, body):
            members = len(signature.sorts.get(sort or THING, ()))
            if binder in COUNTING and not members:
                raise LogicError(
                    f"{formula_text(formula):.80} counts members of {sort}, which has no list: list them, as in "
                    f"`sort {sort} = a, b, c`"
                )
            return 1 + max(1, members) * _size(body, signature)
    return 1
