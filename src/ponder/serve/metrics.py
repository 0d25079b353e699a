"""`/metrics`, under vLLM's names with our prefix, so that its dashboards port."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ponder.engine.scheduler import EngineStats
from ponder.serve.admission import Bound
from ponder.serve.models import Models
from ponder.types import Usage

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5)
LABELS = ("model_name",)


class ServerMetrics:
    """Counters of one server. No label holds anything that a request says."""

    def __init__(self, models: Models) -> None:
        self.registry = CollectorRegistry()
        self._engines = _Engines()
        self.registry.register(_Queues(models))
        self.registry.register(self._engines)
        self._prompt = self._counter("prompt_tokens", "Tokens of prompts")
        self._queries = self._counter("prefix_cache_queries", "Tokens of prompts that were looked up in the cache")
        self._hits = self._counter("prefix_cache_hits", "Tokens of prompts that were found in the cache")
        self._generated = self._counter("generation_tokens", "Tokens generated, thinking included")
        self._reasoning = self._counter("reasoning_tokens", "Tokens generated while thinking")
        self._finished = Counter(
            "ponder:request_success", "Completions that ended", (*LABELS, "finished_reason"), registry=self.registry
        )
        self._left = Counter("ponder:client_disconnects", "Requests whose client left", registry=self.registry)
        self._queue = self._histogram("request_queue_time_seconds", "From the request to its place among what runs")
        self._first = self._histogram("time_to_first_token_seconds", "From the request to its first token")
        self._whole = self._histogram("e2e_request_latency_seconds", "From the request to its end")
        self._between = self._histogram(
            "request_time_per_output_token_seconds", "Between two tokens of a stream, on average", TOKEN_SECONDS
        )
        for name, admission in models.admissions.items():
            admission.observe = self._queue.labels(name).observe

    def finished(self, model: str, usage: Usage, reasons: list[str], seconds: float, first: float | None) -> None:
        """Count one request that ended.

        seconds: how long it took.
        first: seconds until its first token, where that is known.
        """
        self._prompt.labels(model).inc(usage.prompt_tokens)
        self._queries.labels(model).inc(usage.prompt_tokens)
        self._hits.labels(model).inc(usage.cached_tokens)
        self._generated.labels(model).inc(usage.completion_tokens)
        self._reasoning.labels(model).inc(usage.reasoning_tokens)
        for reason in reasons:
            self._finished.labels(model, reason).inc()
        self._whole.labels(model).observe(seconds)
        if first is not None:
            self._first.labels(model).observe(first)
            if usage.completion_tokens > 1:
                self._between.labels(model).observe((seconds - first) / (usage.completion_tokens - 1))

    def left(self) -> None:
        """Count a client that did not wait for its answer."""
        self._left.inc()

    def page(self, engines: Mapping[str, EngineStats]) -> bytes:
        """The metrics in Prometheus's text format.

        engines: the counters of each engine, by the name of its model.
        """
        self._engines.stats = engines
        return generate_latest(self.registry)

    def _counter(self, name: str, what: str) -> Counter:
        return Counter(f"ponder:{name}", what, LABELS, registry=self.registry)

    def _histogram(self, name: str, what: str, buckets: tuple[float, ...] = SECONDS) -> Histogram:
        return Histogram(f"ponder:{name}", what, LABELS, registry=self.registry, buckets=buckets)


class _Queues(Collector):
    """Read from the queues when the page is asked for."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        running = GaugeMetricFamily("ponder:num_requests_running", "Requests under way", labels=LABELS)
        waiting = GaugeMetricFamily("ponder:num_requests_waiting", "Requests that wait", labels=LABELS)
        tokens = GaugeMetricFamily("ponder:num_tokens_waiting", "Tokens of prompts that wait", labels=LABELS)
        refused = CounterMetricFamily(
            "ponder:admission_rejections", "Requests refused with 429", labels=(*LABELS, "reason")
        )
        for name, admission in self._models.admissions.items():
            running.add_metric([name], admission.num_running)
            waiting.add_metric([name], admission.num_waiting)
            tokens.add_metric([name], admission.waiting_tokens)
            for bound in Bound:
                refused.add_metric([name, bound.value], admission.refused[bound])
        yield from (running, waiting, tokens, refused)


class _Engines(Collector):
    """The counters of the engines."""

    def __init__(self) -> None:
        self.stats: Mapping[str, EngineStats] = {}

    def collect(self) -> Iterator[Metric]:
        usage = GaugeMetricFamily("ponder:kv_cache_usage_perc", "Share of the cache in use, 0 to 1", labels=LABELS)
        preempted = CounterMetricFamily("ponder:num_preemptions", "Sequences that were preempted", labels=LABELS)
        drafted = CounterMetricFamily("ponder:spec_decode_num_draft_tokens", "Tokens that were guessed", labels=LABELS)
        accepted = CounterMetricFamily("ponder:spec_decode_num_accepted_tokens", "Guesses taken", labels=LABELS)
        for name, stats in self.stats.items():
            pages = stats.pages_used + stats.pages_cached + stats.pages_free
            usage.add_metric([name], stats.pages_used / pages)
            preempted.add_metric([name], stats.counters.preemptions)
            drafted.add_metric([name], stats.counters.drafted_tokens)
            accepted.add_metric([name], stats.counters.accepted_tokens)
        yield from (usage, preempted, drafted, accepted)
