"""What the engine counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """Since the engine was made. Tokens are rows that went through the model, except `cached_tokens`.

    recomputed_tokens: run once more, after a preemption or behind a fold. cached_tokens: of prompts, found in the
    tree. shadows_finished: next turns made warm. shadows_deferred: steps in which shadows waited because of load.
    shadows_dropped: gave way because pages were short, or too many waited.
    """

    steps: int = 0
    prefill_tokens: int = 0
    decode_tokens: int = 0
    recomputed_tokens: int = 0
    cached_tokens: int = 0
    shadow_tokens: int = 0
    shadows_finished: int = 0
    shadows_deferred: int = 0
    shadows_dropped: int = 0
    preemptions: int = 0
    folds: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """One moment of an engine. pages_used + pages_cached + pages_free is the whole cache."""

    counters: Counters
    running: int
    waiting: int
    waiting_tokens: int
    shadows: int
    page_size: int
    pages_used: int
    pages_cached: int
    pages_free: int
    evictions: int
