"""The one grammar of conversations: messages and typed parts, rendered to ids and parsed back."""

from ponder.dialogue.control import CONTROL_TOKENS
from ponder.dialogue.format import (
    DroppedReasoning,
    Fitted,
    Format,
    Parsed,
    ParseStatus,
    Rendered,
    Span,
    SpanKind,
    fit_to_window,
)
from ponder.dialogue.interchange import from_dicts, read_written_thinking, to_dicts
from ponder.dialogue.load import load_format, train_tokenizer
from ponder.dialogue.messages import (
    Conversation,
    LaneEnd,
    Message,
    Part,
    Reasoning,
    ReasoningPolicy,
    Role,
    Start,
    Text,
    ToolCall,
    ToolResult,
    Voice,
)
from ponder.dialogue.ponder import PonderFormat
from ponder.dialogue.template import ponder_template
from ponder.dialogue.tools import Arguments, Tool, tool_dict, tools_from_dicts

__all__ = [
    "CONTROL_TOKENS",
    "Arguments",
    "Conversation",
    "DroppedReasoning",
    "Fitted",
    "Format",
    "LaneEnd",
    "Message",
    "ParseStatus",
    "Parsed",
    "Part",
    "PonderFormat",
    "Reasoning",
    "ReasoningPolicy",
    "Rendered",
    "Role",
    "Span",
    "SpanKind",
    "Start",
    "Text",
    "Tool",
    "ToolCall",
    "ToolResult",
    "Voice",
    "fit_to_window",
    "from_dicts",
    "load_format",
    "ponder_template",
    "read_written_thinking",
    "to_dicts",
    "tool_dict",
    "tools_from_dicts",
    "train_tokenizer",
]
