"""An audit as a page: all that its Markdown says, a curve, and no script."""

from __future__ import annotations

import html
import re
from xml.etree import ElementTree

from ponder.evaluate.audit import AuditReport, ThinkingAudit
from ponder.evaluate.audit.effects import ChangeEffect, CutCurve
from ponder.evaluate.correction import Rate
from ponder.lens.audit_page import audit_page

NAME = "<script>alert(1)</script> | x"


def audit(task: str, *solved: int) -> ThinkingAudit:
    """Of four problems, that many solved at each share."""
    counted = tuple(tuple(each < count for each in range(4)) for count in solved)
    shares = tuple(at / (len(solved) - 1) for at in range(len(solved)))
    change = ChangeEffect(
        task=task, change="the last step corrupted", before=(True,) * 4, after=(False,) * 4, differs=(True,) * 4
    )
    cut = CutCurve(task=task, shares=shares, solved=counted, whole=(True,) * 4)
    return ThinkingAudit(task=task, n=4, tokens=9.0, cut=cut, changes=(change,), contradictions=Rate(0, 4))


def test_it_holds_the_tables_and_the_curve() -> None:
    report = AuditReport(model=NAME, n=4, thinking=(audit("sums", 0, 2, 4), audit("words", 1, 1, 1)))
    page = audit_page(report)
    text = html.unescape(re.sub(r"<[^>]+>", " ", re.sub("</?em>", "", page)))
    for line in report.markdown().split("\n"):
        for cell in re.split(r"(?<!\\)\|", line):
            if "---" not in cell:
                words = cell.replace("\\|", "|").replace("*", "").strip("# ")
                assert " ".join(words.split()) in " ".join(text.split()), words
    (drawing,) = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    root = ElementTree.fromstring(drawing)
    assert root.attrib["aria-label"].endswith("12% at 0%, 38% at 50%, 62% at 100%")
    lines = {each.attrib["class"]: each.attrib["points"].split() for each in root.iter("polyline")}
    assert lines["all"] == ["48.0,222.0", "358.0,162.0", "668.0,102.0"]


def test_nothing_of_it_runs_or_asks() -> None:
    page = audit_page(AuditReport(model=NAME, n=4, thinking=(audit(NAME, 0, 4),)))
    assert "<script" not in page
    assert "script-src" not in page
    assert "default-src 'none';" in page
    assert not re.search(r"https?://(?!arxiv)|@import|url\(|style=", page)


def test_an_audit_without_thoughts_says_why() -> None:
    page = audit_page(AuditReport(model="far", n=4, unavailable="it runs on another server"))
    assert "not available: it runs on another server" in page
    assert "<svg" not in page
