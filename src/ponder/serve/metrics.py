"""`/metrics`, under vLLM's names with our prefix, so that its dashboards port."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ponder.serve.models import Models
from ponder.types import Usage

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
LABELS = ("model_name",)


class Metrics:
    """Counters of one server. No label holds anything that a request says."""

    def __init__(self, models: Models) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Gauges(models))
        self._prompt = self._counter("prompt_tokens", "Tokens of prompts")
        self._cached = self._counter("prompt_tokens_cached", "Tokens of prompts that were found in the cache")
        self._generated = self._counter("generation_tokens", "Tokens generated, thinking included")
        self._reasoning = self._counter("reasoning_tokens", "Tokens generated while thinking")
        self._finished = Counter(
            "ponder:request_success", "Completions that ended", (*LABELS, "finished_reason"), registry=self.registry
        )
        self._first = self._histogram("time_to_first_token_seconds", "From the request to its first token")
        self._whole = self._histogram("e2e_request_latency_seconds", "From the request to its end")

    def finished(self, model: str, usage: Usage, reasons: list[str], seconds: float, first: float | None) -> None:
        """One request that ended. seconds: it took; first: until its first token, where that is known."""
        self._prompt.labels(model).inc(usage.prompt_tokens)
        self._cached.labels(model).inc(usage.cached_tokens)
        self._generated.labels(model).inc(usage.completion_tokens)
        self._reasoning.labels(model).inc(usage.reasoning_tokens)
        for reason in reasons:
            self._finished.labels(model, reason).inc()
        self._whole.labels(model).observe(seconds)
        if first is not None:
            self._first.labels(model).observe(first)

    def page(self) -> bytes:
        return generate_latest(self.registry)

    def _counter(self, name: str, what: str) -> Counter:
        return Counter(f"ponder:{name}", what, LABELS, registry=self.registry)

    def _histogram(self, name: str, what: str) -> Histogram:
        return Histogram(f"ponder:{name}", what, LABELS, registry=self.registry, buckets=SECONDS)


class _Gauges(Collector):
    """What is read off the queues and the engines when somebody looks."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        running = GaugeMetricFamily("ponder:num_requests_running", "Requests under way", labels=LABELS)
        waiting = GaugeMetricFamily("ponder:num_requests_waiting", "Requests that wait", labels=LABELS)
        refused = GaugeMetricFamily("ponder:admission_rejections", "Requests refused with 429", labels=LABELS)
        cache = GaugeMetricFamily("ponder:kv_cache_usage_perc", "Share of the cache in use, 0 to 1", labels=LABELS)
        for served in self._models:
            admission = self._models.admissions[served.name]
            running.add_metric([served.name], admission.num_running)
            waiting.add_metric([served.name], admission.num_waiting)
            refused.add_metric([served.name], admission.num_refused)
            if served.local is not None:
                stats = served.local.engine.stats
                pages = stats.pages_used + stats.pages_cached + stats.pages_free
                cache.add_metric([served.name], stats.pages_used / pages)
        yield from (running, waiting, refused, cache)
