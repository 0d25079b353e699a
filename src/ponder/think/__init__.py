"""Test-time compute: strategies that turn an ask, a sampler and a budget into an answer.

ask         what is asked, and how; efforts as exact limits
events      what a strategy streams, and the answer that it ends in
strategy    what a strategy is: its demand, its ledger, its samples, and how it is run
strategies/ the strategies, one file each
registry    strategies by their text
reasoner    what `ponder.load` returns: ask, ask_many, stream, events, conversation
"""

from ponder.think.ask import Ask, AskSettings, limits
from ponder.think.conversation import Conversation
from ponder.think.events import Answer, Event
from ponder.think.ledger import Ledger
from ponder.think.reasoner import Reasoner
from ponder.think.registry import parse_strategy
from ponder.think.samples import Samples
from ponder.think.strategies.consensus import consensus
from ponder.think.strategies.direct import direct
from ponder.think.strategy import Demand, RunSettings, Strategy, answer_of, events_of

__all__ = [
    "Answer",
    "Ask",
    "AskSettings",
    "Conversation",
    "Demand",
    "Event",
    "Ledger",
    "Reasoner",
    "RunSettings",
    "Samples",
    "Strategy",
    "answer_of",
    "consensus",
    "direct",
    "events_of",
    "limits",
    "parse_strategy",
]
