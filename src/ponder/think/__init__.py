"""Test-time compute: strategies that turn a question, a sampler and a budget into an answer.

effort      words to exact limits
direct      one answer
consensus   several answers, the majority
parse       strategies by their text
reasoner    what `ponder.load` returns: ask, ask_many, stream, conversation
"""

from ponder.think.consensus import consensus
from ponder.think.direct import direct
from ponder.think.effort import limits
from ponder.think.parse import parse_strategy
from ponder.think.protocol import Question, Strategy
from ponder.think.reasoner import Conversation, Reasoner

__all__ = ["Conversation", "Question", "Reasoner", "Strategy", "consensus", "direct", "limits", "parse_strategy"]
