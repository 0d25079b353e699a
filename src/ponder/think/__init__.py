"""Test-time compute: strategies that turn an ask, a sampler and a budget into an answer.

ask         what is asked, and how; efforts as exact limits
events      what a strategy streams, and the answer that it ends in
strategy    what a strategy is: its demand, and how it is run
ledger      what a run may spend, and slices of it
samples     the calls: some samples of an ask
runs        strategies inside a strategy; candidates: answers to choose from, drawn a few at a time
voting      equal answers, votes, and when a vote is decided; scoring: verifiers and likelihood
steps       lines of thought, and going on from one; tree: which of them a search goes on from
plan        plans of steps, asked for and read
judging     a model as the judge
confidence  thoughts that are given up
strategies/ the strategies, one file each
memory/     notes outside the window: kept, recalled, superseded, forgotten
registry    strategies by their text
reasoner    what `ponder.load` returns: ask, ask_many, stream, events, conversation
"""

from ponder.think.ask import Ask, AskSettings, limits
from ponder.think.candidates import Candidates
from ponder.think.conversation import Conversation
from ponder.think.events import Answer, Event
from ponder.think.ledger import Ledger
from ponder.think.memory.layer import remembering
from ponder.think.memory.memory import Memory
from ponder.think.memory.tools import with_memory_tools
from ponder.think.reasoner import Reasoner
from ponder.think.registry import parse_strategy
from ponder.think.runs import Runs
from ponder.think.samples import Samples
from ponder.think.strategies.approaches import approaches
from ponder.think.strategies.best_of import best_of
from ponder.think.strategies.consensus import consensus
from ponder.think.strategies.council import council
from ponder.think.strategies.delegate import delegate
from ponder.think.strategies.direct import direct
from ponder.think.strategies.refine import refine
from ponder.think.strategies.search import search
from ponder.think.strategy import Demand, RunSettings, Strategy, answer_of, events_of

__all__ = [
    "Answer",
    "Ask",
    "AskSettings",
    "Candidates",
    "Conversation",
    "Demand",
    "Event",
    "Ledger",
    "Memory",
    "Reasoner",
    "RunSettings",
    "Runs",
    "Samples",
    "Strategy",
    "answer_of",
    "approaches",
    "best_of",
    "consensus",
    "council",
    "delegate",
    "direct",
    "events_of",
    "limits",
    "parse_strategy",
    "refine",
    "remembering",
    "search",
    "with_memory_tools",
]
