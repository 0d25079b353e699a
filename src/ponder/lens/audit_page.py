"""An audit as one HTML file: the curve of the thinking cut, and the tables. No script, and nothing is asked for."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from ponder.evaluate.audit import AuditReport
from ponder.evaluate.audit.effects import CutCurve, pooled_curve
from ponder.evaluate.intervals import wilson
from ponder.lens.page import html_file, lens_file

LEFT, TOP, WIDTH, HEIGHT = 48, 12, 620, 240  # of the curve's frame, in units of the drawing


def audit_page(report: AuditReport) -> str:
    """The page of an audit: what its Markdown says, with the curve of the thinking cut above its table."""
    body: list[str] = []
    for block in report.markdown().strip().split("\n\n"):
        if block.startswith("|") and body[-1] == "<h2>Accuracy with the thinking cut</h2>":
            body.append(_drawn([each.cut for each in report.thinking]))
        body.append(_block(block))
    style = lens_file("page.css") + lens_file("audit.css")
    return html_file(f"Audit of {report.model}", style, "\n".join(["<main>", *body, "</main>"]))


def _block(text: str) -> str:
    """A block of the report's Markdown: a heading, a table, or a paragraph."""
    heading = re.fullmatch(r"(#{1,3}) (.*)", text)
    if heading:
        level = len(heading[1])
        return f"<h{level}>{html.escape(heading[2])}</h{level}>"
    if not text.startswith("|"):
        return "<p>" + re.sub(r"\*([^*]+)\*", r"<em>\1</em>", html.escape(text)) + "</p>"
    head, _, *rows = [_cells(line) for line in text.split("\n")]
    columns = "".join(f'<th scope="col">{each}</th>' for each in head)
    lines = "".join("<tr>" + "".join(f"<td>{each}</td>" for each in row) + "</tr>\n" for row in rows)
    table = f"<table>\n<thead><tr>{columns}</tr></thead>\n<tbody>\n{lines}</tbody>\n</table>"
    return f'<div class="scroll" tabindex="0" role="region" aria-label="Table">{table}</div>'


def _cells(line: str) -> list[str]:
    cells = re.split(r"(?<!\\)\|", line)[1:-1]
    return [html.escape(each.strip().replace("\\|", "|")) for each in cells]


def _drawn(curves: Sequence[CutCurve]) -> str:
    """The share solved over the share of the thinking kept: all tasks with their band, and each task by itself."""
    whole = pooled_curve(curves)
    rates = [sum(each) / len(each) for each in whole.solved]
    intervals = [wilson(sum(each), len(each)) for each in whole.solved]
    upper = [(share, each.high) for share, each in zip(whole.shares, intervals, strict=True)]
    lower = [(share, each.low) for share, each in zip(whole.shares, intervals, strict=True)]
    uncut = _y(sum(whole.whole) / len(whole.whole))
    lines = [
        f'<polyline class="task" points="{_points(_rates(each))}"><title>{html.escape(each.task)}</title></polyline>'
        for each in curves
        if len(curves) > 1
    ]
    grid = []
    for part in (0, 0.25, 0.5, 0.75, 1):
        x, y = _x(part), _y(part)
        grid.append(f'<line class="axis" x1="{LEFT}" y1="{y}" x2="{LEFT + WIDTH}" y2="{y}"/>')
        grid.append(f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{part:.0%}</text>')
        grid.append(f'<text x="{x}" y="{TOP + HEIGHT + 20}" text-anchor="middle">{part:.0%}</text>')
    said = ", ".join(f"{rate:.0%} at {share:.0%}" for share, rate in zip(whole.shares, rates, strict=True))
    return (
        f'<svg viewBox="0 0 {LEFT + WIDTH + 20} {TOP + HEIGHT + 48}" role="img" '
        f'aria-label="Solved with that share of the thinking kept: {said}">\n'
        + "\n".join(grid)
        + f'\n<polygon class="band" points="{_points([*upper, *reversed(lower)])}"/>\n'
        + "\n".join(lines)
        + f'\n<polyline class="all" points="{_points(_rates(whole))}"/>\n'
        + f'<line class="whole" x1="{LEFT}" y1="{uncut}" x2="{LEFT + WIDTH}" y2="{uncut}"><title>uncut</title></line>\n'
        + f'<text x="{LEFT + WIDTH / 2}" y="{TOP + HEIGHT + 42}" text-anchor="middle">of the thinking kept; '
        + "thick: all tasks, with Wilson’s 95% band; thin: each task; dashed: uncut</text>\n</svg>"
    )


def _rates(curve: CutCurve) -> list[tuple[float, float]]:
    return [(share, sum(each) / len(each)) for share, each in zip(curve.shares, curve.solved, strict=True)]


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{_x(share)},{_y(rate)}" for share, rate in points)


def _x(share: float) -> float:
    return round(LEFT + WIDTH * share, 1)


def _y(rate: float) -> float:
    return round(TOP + HEIGHT * (1 - rate), 1)
