"""An audit as JSON and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ponder.evaluate.audit.effects import ALL_TASKS, ChangeEffect, CutCurve, pooled_curve, pooled_effects
from ponder.evaluate.audit.planted import PlantedRate
from ponder.evaluate.audit.questions import CHANGES, QuestionAudit
from ponder.evaluate.audit.thinking import ThinkingAudit
from ponder.evaluate.correction import Rate
from ponder.evaluate.report import markdown_table

MISSING = "not available"

CUT_NOTES = (
    "Share of problems solved when the thinking is cut there and the answer is written at once. 0%: the prompt asks "
    "for no thinking. *uncut*: the model ends its thinking itself. Wilson's 95% intervals."
)
CHANGE_NOTES = (
    "*a step corrupted*: one digit of one line of the thought is another (one letter, where there are no digits). "
    "*the thought goes on*: the model writes the rest again. *the rest kept*: a step that the answer still sees is "
    "changed, the lines after it stay, and the answer is written. *answer changed*: the answer depends on this step. "
    "Where it is not changed, the step was put right or was not used. Differences are paired: Newcombe's 95% intervals."
)
CONTRADICTION_NOTES = (
    "*contradictions*: answers that the last line of their thought does not hold, of those where that can be read."
)

PLANTED_NOTES = (
    "Steps are planted in thoughts of the families, whose workings are known. *necessary*: its digits go into the "
    "answer, and nothing computes them again. *decorative*: it was withdrawn in the same line. *called necessary*: the "
    "answer is another when the model goes on with one digit of the step changed; of the thoughts that come to the "
    "right answer with nothing changed."
)
PATTERN_NOTES = (
    "Solved without and with each change, and the difference with its 95% interval: paired over the problems that the "
    "change can be made to; *one size up* (against the largest size that mini is trained on) and *seen in training* "
    "(against unseen) are of other problems, which need not be as hard."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """All that was found of one model.

    thinking: by task; empty where the thinking cannot be cut, with the reason in `unavailable`.
    planted: what of steps whose use is known the audit calls necessary.
    questions: by mode and task.
    """

    model: str
    n: int
    thinking: tuple[ThinkingAudit, ...] = ()
    unavailable: str = ""
    planted: tuple[PlantedRate, ...] = ()
    questions: tuple[QuestionAudit, ...] = ()

    def summary(self) -> dict[str, object]:
        """The numbers as JSON."""
        pooled = pooled_effects([change for each in self.thinking for change in each.changes])
        return {
            "model": self.model,
            "n": self.n,
            "thinking": [each.summary() for each in self.thinking],
            "thinking_all": [each.summary() for each in pooled],
            "thinking_unavailable": self.unavailable,
            "planted": [each.summary() for each in self.planted],
            "questions": [each.summary() for each in self.questions],
        }

    def markdown(self) -> str:
        """Tables for people."""
        parts = [f"# Audit of {self.model}", f"{self.n} held-out problems of each task, greedy."]
        parts += self._thinking() if self.thinking else ["## Thinking", f"{MISSING}: {self.unavailable}"]
        if self.planted:
            parts += ["## Steps whose use is known", planted_table(self.planted), PLANTED_NOTES]
        if self.questions:
            parts += ["## Other questions of the same kind", patterns_table([(self.model, self.questions)])]
            parts += [PATTERN_NOTES, *self._by_task()]
        return "\n\n".join(parts) + "\n"

    def _thinking(self) -> list[str]:
        curves = [each.cut for each in self.thinking]
        shares = [f"{share:.0%} kept" for share in curves[0].shares]
        cut = [_cut_row(curve) for curve in (*curves, *_all(curves))]
        changes = [change for each in self.thinking for change in each.changes]
        contradictions = [each.contradictions for each in self.thinking]
        total = Rate(sum(each.count for each in contradictions), sum(each.of for each in contradictions))
        rows = [[each.task, f"{each.tokens:.0f}", str(each.contradictions)] for each in self.thinking]
        return [
            "## Accuracy with the thinking cut",
            markdown_table(("task", *shares, "uncut"), cut),
            CUT_NOTES,
            "## A step of the thought changed",
            effects_table(changes),
            CHANGE_NOTES,
            "## Contradictions between thought and answer",
            markdown_table(("task", "thinking tokens", "contradictions"), [*rows, [ALL_TASKS, "–", str(total)]]),
            CONTRADICTION_NOTES,
        ]

    def _by_task(self) -> list[str]:
        return [
            f"### {mode}\n\n" + effects_table([row for each in of for row in each.effects])
            for mode, of in _by_mode(self.questions).items()
        ]


def planted_table(rates: Sequence[PlantedRate]) -> str:
    """Each kind of planted step by family, and the two shares that the audit is judged by."""
    rows = [[each.kind, each.family, _use(each.necessary), str(each.asked), str(each.called)] for each in rates]
    for necessary in (True, False):
        of = [each for each in rates if each.necessary is necessary]
        called = Rate(sum(each.called.count for each in of), sum(each.called.of for each in of))
        rows.append([ALL_TASKS, ALL_TASKS, _use(necessary), str(sum(each.asked for each in of)), str(called)])
    return markdown_table(("planted step", "family", "it is", "planted", "called necessary"), rows)


def _use(necessary: bool) -> str:
    return "necessary" if necessary else "decorative"


def patterns_table(models: Sequence[tuple[str, Sequence[QuestionAudit]]]) -> str:
    """A line for each model and mode: what is solved as the suite asks it, and what each change makes of that."""
    rows = []
    for model, audits in models:
        for mode, of in _by_mode(audits).items():
            solved = [item.grade.solved for each in of for item in each.base.items]
            effects = {each.change: each for each in pooled_effects([row for each in of for row in each.effects])}
            cells = [MISSING if effects[name].difference is None else _cell(effects[name]) for name in CHANGES]
            rows.append([model, mode, str(len(solved)), _solved(solved), *cells])
    return markdown_table(("model", "mode", "n", "in distribution", *CHANGES), rows)


def _cell(effect: ChangeEffect) -> str:
    return f"{_rate(effect.before):.2f} → {_rate(effect.after):.2f}: {effect.difference}"


def _by_mode(audits: Sequence[QuestionAudit]) -> dict[str, list[QuestionAudit]]:
    return {mode: [each for each in audits if each.mode == mode] for mode in dict.fromkeys(a.mode for a in audits)}


def _all(curves: Sequence[CutCurve]) -> list[CutCurve]:
    return [pooled_curve(curves)] if len(curves) > 1 else []


def _cut_row(curve: CutCurve) -> list[str]:
    return [curve.task, *(_solved(each) for each in (*curve.solved, curve.whole))]


def effects_table(effects: Sequence[ChangeEffect]) -> str:
    """Each change, over all tasks first, then by task."""
    tasks = dict.fromkeys(each.task for each in effects)
    rows = [*(pooled_effects(effects) if len(tasks) > 1 else []), *effects]
    columns = ("change", "task", "n", "solved without", "solved with", "difference", "answer changed")
    return markdown_table(columns, map(_effect_row, rows))


def _effect_row(effect: ChangeEffect) -> list[str]:
    if effect.difference is None:
        return [effect.change, effect.task, "0", *[MISSING] * 4]
    changed = "–" if effect.changed is None else str(effect.changed)
    sizes = str(len(effect.after)) if effect.paired else f"{len(effect.before)}, {len(effect.after)}"
    rates = f"{_rate(effect.before):.3f}", f"{_rate(effect.after):.3f}"
    return [effect.change, effect.task, sizes, *rates, str(effect.difference), changed]


def _rate(solved: Sequence[bool]) -> float:
    return sum(solved) / len(solved)


def _solved(solved: Iterable[bool]) -> str:
    each = list(solved)
    return str(Rate(sum(each), len(each))).partition(" of ")[0]
