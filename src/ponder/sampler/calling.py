"""Tool choice: what a request may demand, and the constraint that keeps an answer to it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ponder.dialogue import Arguments, Format
from ponder.dialogue.calls import CallSyntax, declared_call
from ponder.engine.sequence import Constraint
from ponder.sampler.protocol import NamedTool, ParallelCalls, Request, ToolChoice
from ponder.tokenizer import Tokenizer
from ponder.types import InvalidRequest, PhaseTokens, SamplingParams

ANY_ARGUMENTS = '{"type": "object"}'  # of tools that are not strict, beside one that is, or beside a grammar
NEVER = -1e30  # a bias, in nats


def without_calls(params: SamplingParams, tokens: PhaseTokens) -> SamplingParams:
    """Parameters with a bias by which no call begins."""
    bias = params.logit_bias
    if tokens.call_open is None or not isinstance(bias, tuple):
        return params
    others = (pair for pair in bias if not (isinstance(pair, tuple) and pair[:1] == (tokens.call_open,)))
    return replace(params, logit_bias=(*others, (tokens.call_open, NEVER)))


def compile_calling(request: Request, tokenizer: Tokenizer, format: Format, *, vocab_size: int) -> Constraint | None:
    """The constraint of a request's answer, its grammar and its calls; None: it may say what it will.

    Raises InvalidRequest for schemas that cannot be followed, and for calls where the format has none.
    """
    outside: Constraint | None = None
    tokens, choice = format.phase_tokens, request.tool_choice
    demanded = isinstance(choice, NamedTool) or choice is ToolChoice.REQUIRED
    if request.grammar is not None and not demanded:
        from ponder.sampler.grammar import compile_grammar

        outside = compile_grammar(request.grammar, tokenizer, tokens, vocab_size=vocab_size)
    if choice is ToolChoice.NONE or not request.tools:
        return outside
    syntax = format.calls
    if syntax is None or tokens.call_open is None or tokens.call_close is None:
        raise InvalidRequest(f"the {format.name} format has no tool calls: leave the tools out")
    schemas = [
        (tool.name, tool.parameters if demanded or tool.arguments is Arguments.STRICT else ANY_ARGUMENTS)
        for tool in request.tools
        if not isinstance(choice, NamedTool) or tool.name == choice.name
    ]
    body: Constraint | None = None
    strict = any(tool.arguments is Arguments.STRICT for tool in request.tools)
    if demanded or strict or outside is not None:  # a broken call would be text, which a grammar does not allow
        from ponder.sampler.grammar import compile_calls

        body = compile_calls(schemas, syntax, tokenizer, tokens, vocab_size=vocab_size)
    one = isinstance(choice, NamedTool) or request.parallel_calls is ParallelCalls.ONE
    if body is None and outside is None and not one:
        return None
    return CallConstraint(
        tokens,
        syntax,
        frozenset(tool.name for tool in request.tools),
        vocab_size,
        demanded=demanded,
        one=one,
        body=body,
        outside=outside,
    )


class CallConstraint:
    """See `ponder.engine.sequence.Constraint`. The answer is calls (`demanded`), or calls or what `outside` allows, or
    text and calls as they come.

    one: the turn ends after the first call.
    body: what a call holds, at its beginning, up to the close token; None: as the model will.

    After a call that stands for the answer only further calls come.
    """

    def __init__(
        self,
        tokens: PhaseTokens,
        syntax: CallSyntax,
        declared: frozenset[str],
        vocab_size: int,
        *,
        demanded: bool,
        one: bool,
        body: Constraint | None,
        outside: Constraint | None,
    ) -> None:
        assert tokens.call_open is not None
        self._tokens, self._syntax, self._declared, self._vocab_size = tokens, syntax, declared, vocab_size
        self._open = tokens.call_open
        self._demanded, self._one, self._body, self._outside = demanded, one, body, outside
        self._all = torch.ones(vocab_size, dtype=torch.bool)
        self._said = False  # something that `outside` governs
        self._calls = 0
        self._between = 0  # ids of a separator that has begun
        self._ids: list[int] | None = None  # of the call that is open
        self._inside: Constraint | None = None

    def allowed(self) -> Tensor:
        if self._ids is not None:
            return self._all if self._inside is None else self._inside.allowed()
        if self._one and self._calls:
            return self._only(*self._tokens.end)
        separator = self._syntax.separator
        if self._between:
            return self._only(*(separator[self._between : self._between + 1] or (self._open,)))
        if self._calls and (self._demanded or self._outside is not None):
            return self._only(self._open, *self._tokens.end, *separator[:1])
        if self._demanded:
            return self._only(self._open)
        if self._outside is None:
            return self._all
        allowed_V = self._outside.allowed()
        if not self._said:
            allowed_V = allowed_V.clone()
            allowed_V[self._open] = True
        return allowed_V

    def advance(self, id: int) -> None:
        if self._ids is not None:
            self._advance_call(id)
        elif id == self._open:
            self._ids, self._between = [], 0
            self._inside = None if self._body is None else self._body.fork()
        elif self._calls and (self._demanded or self._outside is not None):
            self._between += id not in self._tokens.end
        elif self._outside is not None:
            self._said = True
            self._outside.advance(id)

    def fork(self) -> CallConstraint:
        copy = CallConstraint(
            self._tokens,
            self._syntax,
            self._declared,
            self._vocab_size,
            demanded=self._demanded,
            one=self._one,
            body=self._body,
            outside=None if self._outside is None else self._outside.fork(),
        )
        copy._said, copy._calls, copy._between = self._said, self._calls, self._between
        copy._ids = None if self._ids is None else list(self._ids)
        copy._inside = None if self._inside is None else self._inside.fork()
        return copy

    def _advance_call(self, id: int) -> None:
        assert self._ids is not None
        if self._inside is not None:
            self._inside.advance(id)
        if id != self._tokens.call_close:
            self._ids.append(id)
            return
        ids, self._ids, self._inside = self._ids, None, None
        call = declared_call(self._syntax, ids, self._declared) or self._syntax.read(ids)
        self._calls += call is not None  # what is not a call becomes text

    def _only(self, *ids: int) -> Tensor:
        allowed_V = torch.zeros(self._vocab_size, dtype=torch.bool)
        allowed_V[list(ids)] = True
        return allowed_V
