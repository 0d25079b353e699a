"""Audits: whether an answer depends on its thinking, and what another question of the same kind changes.

thoughts  a model's thoughts, cut or with one step changed
thinking  the audit of one task's thinking
effects   what a change did, as paired differences with intervals
report    all of it as JSON and as Markdown
"""

from ponder.evaluate.audit.report import AuditReport
from ponder.evaluate.audit.thinking import ThinkingAudit, audit_thinking
from ponder.evaluate.audit.thoughts import Thinker

__all__ = ["AuditReport", "Thinker", "ThinkingAudit", "audit_thinking"]
