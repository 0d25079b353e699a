"""Measuring: suites of held-out problems, accuracy with intervals, token cost, and accuracy against thinking.

problems    suites and held-out problems
measure     one task under one mode; callable during training
suite       a whole evaluation
report      JSON and Markdown
curve       accuracy against the thinking cap
published   the scores that reasoning-gym's authors published
"""

from ponder.evaluate.curve import Curve, curve, plot_curves
from ponder.evaluate.intervals import Interval, wilson
from ponder.evaluate.measure import Item, Result, measure, measure_async
from ponder.evaluate.problems import held_out, load_suite, overlap, read_hashes
from ponder.evaluate.report import Report
from ponder.evaluate.suite import evaluate, standard_modes

__all__ = [
    "Curve",
    "Interval",
    "Item",
    "Report",
    "Result",
    "curve",
    "evaluate",
    "held_out",
    "load_suite",
    "measure",
    "measure_async",
    "overlap",
    "plot_curves",
    "read_hashes",
    "standard_modes",
    "wilson",
]
