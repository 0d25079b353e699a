"""In the child: z3 decides which formulas can be true together, and what follows. The limits hold here and outside."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, cast

from ponder.types import MissingExtra

MARGIN = 0.2  # seconds that z3 may overrun its own limit by
MEMORY_MIB = 768


def warm_solver(_: None) -> None:
    """Import z3 in the fork server, so that every child finds it ready. Solving there would start threads."""
    _library()


def _library() -> Any:
    try:
        import z3
    except ImportError as error:
        raise MissingExtra("z3-solver", "verify") from error
    return z3


def decide_statements(payload: dict[str, Any]) -> dict[str, Any]:
    """What z3 says of `{"signature", "background", "premises", "goals", "seconds"}`, formulas as `prover._packed` has
    them.

    premises: "sat", "unsat" or "unknown", all of them together. conflicts: of unsat premises, minimal sets as lists of
    indices; complete: these are all. goals: of sat premises, for each a verdict and the premises used.
    """
    deadline = time.monotonic() + payload["seconds"] - MARGIN
    _library().set_param("memory_max_size", MEMORY_MIB)
    system = _System(payload, deadline)
    everything = range(len(payload["premises"]))
    found: dict[str, Any] = {"premises": system.check(everything), "conflicts": [], "complete": False, "goals": []}
    if found["premises"] == "unsat":
        for conflict in system.conflicts():
            if conflict is None:
                return found
            found["conflicts"].append(conflict)
        found["complete"] = True
    elif found["premises"] == "sat":
        for number, goal in enumerate(payload["goals"]):
            system.deadline = time.monotonic() + (deadline - time.monotonic()) / (len(payload["goals"]) - number)
            found["goals"].append(system.judged(goal))
    return found


class _System:
    """Premises in a solver, each under its own literal, so that any set of them can be asked about."""

    def __init__(self, payload: dict[str, Any], deadline: float) -> None:
        self.deadline = deadline
        self._z3 = _library()
        self._context = self._z3.Context()
        self._writer = _Writer(self._z3, self._context, payload["signature"])
        self._solver = self._z3.Solver(ctx=self._context)
        for each in [*self._writer.facts(), *map(self._writer.written, payload["background"])]:
            self._solver.add(each)
        self._literals = [self._literal(formula, f"#{i}") for i, formula in enumerate(payload["premises"])]

    def check(self, chosen: Sequence[int], *more: Any) -> str:
        """Whether the premises chosen can be true together, with literals of others."""
        left = int(1000 * (self.deadline - time.monotonic()))
        if left <= 0:
            return "unknown"
        self._solver.set("timeout", left)
        try:
            return str(self._solver.check(*(self._literals[i] for i in chosen), *more))
        except self._z3.Z3Exception:  # out of memory
            return "unknown"

    def judged(self, goal: Any) -> dict[str, Any]:
        """The goal's verdict, from premises that are consistent, and the premises that it takes."""
        holds, fails = (self._literal(each, "goal") for each in (goal, ["op", "not", goal]))
        everything = range(len(self._literals))
        against = self.check(everything, fails)
        if against == "unsat":
            return {"verdict": "proved", "used": self.shrunk(everything, fails)[0]}
        for_it = self.check(everything, holds)
        if for_it == "unsat":
            return {"verdict": "refuted", "used": self.shrunk(everything, holds)[0]}
        return {"verdict": "undetermined" if against == for_it == "sat" else "unknown", "used": []}

    def shrunk(self, chosen: Sequence[int], *more: Any) -> tuple[list[int], bool]:
        """A set within `chosen`, unsat with `more`, from which nothing can be left out. False: time ran out before
        that was certain."""
        core, certain = self._core(chosen), True
        for each in list(core):
            if each not in core:
                continue
            rest = [other for other in core if other != each]
            answer = self.check(rest, *more)
            if answer == "unsat":
                core = self._core(rest)
            elif answer == "unknown":
                certain = False
        return sorted(core), certain

    def conflicts(self) -> Iterator[list[int] | None]:
        """All minimal unsat sets of premises (MARCO, Liffiton et al. 2016). None: time ran out."""
        z3, n = self._z3, len(self._literals)
        map_context = z3.Context()
        chart = z3.Solver(ctx=map_context)
        inside = [z3.Bool(f"in{i}", map_context) for i in range(n)]
        while chart.check() == z3.sat:
            model = chart.model()
            seed = [i for i in range(n) if not z3.is_false(model[inside[i]])]
            answer = self.check(seed)
            if answer == "unsat":
                core, certain = self.shrunk(seed)
                if not certain:
                    yield None
                    return
                yield core
                chart.add(z3.Or(*(z3.Not(inside[i]) for i in core), map_context))
                continue
            grown = self._grown(seed) if answer == "sat" else None
            if grown is None:
                yield None
                return
            chart.add(z3.Or(*(inside[i] for i in range(n) if i not in grown), map_context))

    def _grown(self, seed: list[int]) -> set[int] | None:
        """A largest set around `seed` that is sat; None: time ran out."""
        grown = list(seed)
        for each in range(len(self._literals)):
            if each not in seed:
                answer = self.check([*grown, each])
                if answer == "sat":
                    grown.append(each)
                elif answer == "unknown":
                    return None
        return set(grown)

    def _core(self, chosen: Sequence[int]) -> list[int]:
        """The premises of z3's last proof."""
        names = {str(literal) for literal in self._solver.unsat_core()}
        return [i for i in chosen if str(self._literals[i]) in names]

    def _literal(self, formula: Any, name: str) -> Any:
        literal = self._z3.FreshBool(name, self._context)
        self._solver.add(self._z3.Implies(literal, self._writer.written(formula)))
        return literal


class _Writer:
    """Formulas in z3's terms. Quantifiers over listed sorts are written out, member by member."""

    def __init__(self, z3: Any, context: Any, signature: dict[str, Any]) -> None:
        self._z3, self._context = z3, context
        self._signature = signature
        self._sorts: dict[str, Any] = {"int": z3.IntSort(context), "bool": z3.BoolSort(context)}
        self._symbols: dict[str, Any] = {}
        self._members: dict[str, list[Any]] = {}
        for sort, members in signature["sorts"].items():
            if members:
                self._sorts[sort], self._members[sort] = z3.EnumSort(f"sort {sort}", list(members), context)
                self._symbols |= dict(zip(members, self._members[sort], strict=True))
            else:
                self._sorts[sort] = z3.DeclareSort(f"sort {sort}", context)
        self._sorts.setdefault("thing", z3.DeclareSort("sort thing", context))
        for name, (args, result) in signature["symbols"].items():
            kinds = [self._sorts[each] for each in (*args, result)]
            self._symbols[name] = z3.Function(name, *kinds) if args else z3.Const(name, kinds[0])
        self._bound: dict[str, Any] = {}

    def facts(self) -> Iterator[Any]:
        """Names of one sort stand for different things."""
        by_sort: dict[str, list[Any]] = {}
        for name in self._signature["distinct"]:
            if name in self._signature["symbols"]:
                by_sort.setdefault(self._signature["symbols"][name][1], []).append(self._symbols[name])
        yield from (self._z3.Distinct(*names) for names in by_sort.values() if len(names) > 1)

    def written(self, formula: Any) -> Any:
        kind, *rest = formula
        match kind:
            case "number":
                return self._z3.IntVal(rest[0], self._context)
            case "bound":
                return self._bound[rest[0]]
            case "applied":
                symbol = self._symbols[rest[0]]
                return symbol(*map(self.written, rest[1:])) if rest[1:] else symbol
            case "op":
                return self._operation(rest[0], [self.written(each) for each in rest[1:]])
        return self._quantified(*rest)

    def _operation(self, operator: str, args: list[Any]) -> Any:
        z3 = self._z3
        match operator, *args:
            case "not", a:
                return z3.Not(a)
            case "and", *_:
                return z3.And(*args)
            case "or", *_:
                return z3.Or(*args)
            case "->", a, b:
                return z3.Implies(a, b)
            case (("<->" | "="), a, b):
                return a == b
            case "!=", a, b:
                return a != b
            case "<", a, b:
                return a < b
            case "<=", a, b:
                return a <= b
            case ">", a, b:
                return a > b
            case ">=", a, b:
                return a >= b
            case "+", a, b:
                return a + b
            case "-", a:
                return -a
            case "-", a, b:
                return a - b
            case "*", a, b:
                return a * b
        raise AssertionError(operator)

    def _quantified(self, binder: str, variable: str, sort: str, number: int, body: Any) -> Any:
        outer = self._bound.get(variable)
        z3, members = self._z3, self._members.get(sort)
        if members is None:
            self._bound[variable] = z3.FreshConst(self._sorts[sort], variable)
            inner = self.written(body)
            made = (z3.ForAll if binder == "all" else z3.Exists)([self._bound[variable]], inner)
        else:
            cases = []
            for member in members:
                self._bound[variable] = member
                cases.append(self.written(body))
            made = self._over_members(binder, cases, number)
        if outer is None:
            del self._bound[variable]
        else:
            self._bound[variable] = outer
        return made

    def _over_members(self, binder: str, cases: list[Any], number: int) -> Any:
        z3 = self._z3
        match binder:
            case "all":
                return z3.And(*cases)
            case "some":
                return z3.Or(*cases)
            case "at least":
                return z3.PbGe([(case, 1) for case in cases], number)
            case "at most":
                return z3.PbLe([(case, 1) for case in cases], number)
        return cast(Any, z3.PbEq([(case, 1) for case in cases], number))
