"""Measuring: suites of held-out problems, accuracy with intervals, token cost, and accuracy against thinking.

problems    suites and held-out problems
measure     one task under one mode; callable during training
suite       a whole evaluation
report      JSON and Markdown
pass_at     pass@k and the best of n, from one set of samples
correction  whether a model recognises its own wrong tries
forgetting  what models that were tuned one from the other still know
curve       accuracy against the thinking cap; compute: strategies against tokens times parameters
published   the scores that reasoning-gym's authors published
"""

from ponder.evaluate.compute import (
    ComputePoint,
    Spending,
    compare_strategies,
    compute_summary,
    paired_difference,
    plot_compute,
    table_of_compute,
)
from ponder.evaluate.correction import Correction, Rate, correction
from ponder.evaluate.curve import Curve, curve, plot_curves, table_of_curves
from ponder.evaluate.forgetting import Forgetting, measure_forgetting
from ponder.evaluate.intervals import Interval, bootstrap, wilson
from ponder.evaluate.measure import Item, Result, Sample, measure, measure_async
from ponder.evaluate.pass_at import PassAt, pass_at, pass_at_k, plot_pass_at
from ponder.evaluate.problems import held_out, load_suite, overlap, read_hashes
from ponder.evaluate.report import Report
from ponder.evaluate.suite import evaluate, standard_modes

__all__ = [
    "ComputePoint",
    "Correction",
    "Curve",
    "Forgetting",
    "Interval",
    "Item",
    "PassAt",
    "Rate",
    "Report",
    "Result",
    "Sample",
    "Spending",
    "bootstrap",
    "compare_strategies",
    "compute_summary",
    "correction",
    "curve",
    "evaluate",
    "held_out",
    "load_suite",
    "measure",
    "measure_async",
    "measure_forgetting",
    "overlap",
    "paired_difference",
    "pass_at",
    "pass_at_k",
    "plot_compute",
    "plot_curves",
    "plot_pass_at",
    "read_hashes",
    "standard_modes",
    "table_of_compute",
    "table_of_curves",
    "wilson",
]
