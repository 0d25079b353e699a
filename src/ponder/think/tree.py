"""The tree of a search: the prefixes of thoughts that are known, and which of them each method goes on from next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import ceil, exp, log, sqrt

from ponder.sampler.protocol import Capabilities, Completion
from ponder.think.ask import Ask
from ponder.think.steps import go_on_from, steps_of

SHARPNESS = 5.0  # of REBASE's softmax over values in [0, 1]; 1 / temperature
EXPLORE = 0.5  # the weight of UCT's bonus for what was tried seldom


class SearchMethod(StrEnum):
    """Which prefixes a search goes on from.

    BEAM: the `width` best ones of the last step.
    DVTS: the best one of each of `width` trees, which never compete (diverse verifier tree search).
    REBASE: all of the last step, each with a share of the answers by the softmax of the values (arXiv 2408.00724).
    MCTS: the one that UCT leads to, at any depth.
    """

    BEAM = "beam"
    DVTS = "dvts"
    REBASE = "rebase"
    MCTS = "mcts"


@dataclass(slots=True, eq=False)
class ThoughtNode:
    """A prefix of a thought, ending with a step.

    asked: the ask that goes on from it.
    before: what the prefix says.
    parent: the prefix that is one step shorter; None: nothing is thought yet.
    values: of the answers that came through it.
    children: the prefixes that are one step longer, by their prompts.
    expanded: whether it was gone on from.
    """

    asked: Ask
    before: str = ""
    parent: ThoughtNode | None = None
    values: list[float] = field(default_factory=list)
    children: dict[object, ThoughtNode] = field(default_factory=dict)
    expanded: bool = False

    @property
    def value(self) -> float:
        """The mean of its answers' values."""
        return sum(self.values) / len(self.values)

    @property
    def is_open(self) -> bool:
        """Whether it or a prefix below it can still be gone on from."""
        return not self.expanded or any(child.is_open for child in self.children.values())

    @property
    def root(self) -> ThoughtNode:
        return self if self.parent is None else self.parent.root


class ThoughtTree:
    """Prefixes of thoughts about one ask, found by answers that went on from shorter ones.

    width, branch: see `search`.
    """

    def __init__(self, ask: Ask, method: SearchMethod, width: int, branch: int) -> None:
        self._method, self._width, self._branch = method, width, branch
        self._roots = [ThoughtNode(ask) for _ in range(width if method is SearchMethod.DVTS else 1)]
        self._newest: list[ThoughtNode] = []
        self._ended = 0

    def pick(self) -> list[ThoughtNode]:
        """The prefixes to go on from next, one for each answer to draw. Empty: no thought has a step left."""
        newest, self._newest = sorted(self._newest, key=lambda node: -node.value), []
        method, each = self._method, self._branch
        if method is SearchMethod.MCTS:
            picked = [_select(self._roots[0])] * each if self._roots[0].is_open else []
        elif not self._roots[0].expanded:
            picked = _dealt(self._roots, self._width * each)
        elif method is SearchMethod.BEAM:
            picked = _dealt(newest[: self._width], self._width * each)
        elif method is SearchMethod.DVTS:
            best = {id(node.root): node for node in reversed(newest)}
            picked = [best[id(root)] for root in self._roots if id(root) in best for _ in range(each)]
        else:
            shares = rebase_shares([node.value for node in newest], self._width * each - self._ended)
            picked = [node for node, share in zip(newest, shares, strict=True) for _ in range(share)]
        for node in picked:
            node.expanded = True
        return picked

    def add(self, node: ThoughtNode, completion: Completion, value: float, capabilities: Capabilities) -> None:
        """An answer went on from this prefix. Its first step makes a longer one, unless the thought ended with it."""
        above: ThoughtNode | None = node
        while above is not None:
            above.values.append(value)
            above = above.parent
        steps = steps_of(completion, capabilities)
        if len(steps) < 2:
            self._ended += 1
            return
        asked = go_on_from(node.asked, completion, steps[1], capabilities)
        child = node.children.get(asked.prompt)
        if child is None:
            child = node.children[asked.prompt] = ThoughtNode(asked, node.before + steps[0].text, node)
            self._newest.append(child)
        child.values.append(value)


def _dealt(nodes: Sequence[ThoughtNode], answers: int) -> list[ThoughtNode]:
    """Each node equally often, the first ones once more where it does not come out even."""
    return sorted((nodes[place % len(nodes)] for place in range(answers) if nodes), key=nodes.index)


def rebase_shares(values: Sequence[float], total: int) -> list[int]:
    """`total` shared by the softmax of the values, which fall: each gets its part of what is left, rounded up."""
    weights = [exp(SHARPNESS * value) for value in values]
    shares: list[int] = []
    for place, weight in enumerate(weights):
        left = max(0, total - sum(shares))
        shares.append(min(left, ceil(left * weight / sum(weights[place:]))))
    return shares


def _select(node: ThoughtNode) -> ThoughtNode:
    """Where UCT leads among the prefixes that can be gone on from (Kocsis and Szepesvári 2006). Values are measured
    between the worst and the best answer so far, so that the bonus weighs the same whatever their range is."""
    worst, best = min(node.values, default=0.0), max(node.values, default=0.0)
    while node.expanded:
        tried = log(len(node.values))

        def bound(child: ThoughtNode, tried: float = tried) -> float:
            part = (child.value - worst) / (best - worst) if best > worst else 0.0
            return part + EXPLORE * sqrt(tried / len(child.values))

        node = max((child for child in node.children.values() if child.is_open), key=bound)
    return node
