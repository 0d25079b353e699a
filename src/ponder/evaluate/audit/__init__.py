"""Audits: whether an answer depends on its thinking, and what another question of the same kind changes.

thoughts   a model's thoughts, cut or with one step changed
thinking   the audit of one task's thinking
planted    steps whose use is known: how often the audit is right
questions  the same problems with other numbers, in another order, in other words; one size up
effects    what a change did, as paired differences with intervals
report     all of it as JSON and as Markdown
"""

from ponder.evaluate.audit.planted import PlantedRate, audit_planted
from ponder.evaluate.audit.questions import QuestionAudit, audit_questions
from ponder.evaluate.audit.report import AuditReport, patterns_table
from ponder.evaluate.audit.thinking import ThinkingAudit, audit_thinking
from ponder.evaluate.audit.thoughts import Thinker

__all__ = [
    "AuditReport",
    "PlantedRate",
    "QuestionAudit",
    "Thinker",
    "ThinkingAudit",
    "audit_planted",
    "audit_questions",
    "audit_thinking",
    "patterns_table",
]
