"""What is counted, in Prometheus' form. Owns names and help texts of the metrics; who counts calls the methods."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

_TURN_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Telemetry:
    """One daemon's metrics, in a registry of their own."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._messages = Counter(
            "palaver_messages",
            "Messages that arrived: accepted, declined, duplicate, quarantined.",
            ["account", "outcome"],
            registry=self._registry,
        )
        self._chunks = Counter(
            "palaver_chunks",
            "Pieces of replies: sent, repeated (may have been shown twice), uncertain, skipped, failed.",
            ["account", "outcome"],
            registry=self._registry,
        )
        self._summaries = Counter(
            "palaver_summaries",
            "Summaries: by the model, by digest, refused because something newer came first.",
            ["outcome"],
            registry=self._registry,
        )
        self._turns = Histogram(
            "palaver_turn_seconds",
            "Turns that ended, by status, and how long they ran.",
            ["status"],
            buckets=_TURN_BUCKETS,
            registry=self._registry,
        )

    def count_message(self, account: str, outcome: str) -> None:
        self._messages.labels(account, outcome).inc()

    def count_chunk(self, account: str, outcome: str) -> None:
        self._chunks.labels(account, outcome).inc()

    def count_summary(self, outcome: str) -> None:
        self._summaries.labels(outcome).inc()

    def observe_turn(self, status: str, seconds: float) -> None:
        self._turns.labels(status).observe(seconds)

    def watch(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """A gauge that is read when somebody asks."""
        Gauge(f"palaver_{name}", help_text, registry=self._registry).set_function(value)

    def exposition(self) -> bytes:
        return generate_latest(self._registry)
