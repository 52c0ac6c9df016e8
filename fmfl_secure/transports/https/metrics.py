"""Prometheus metrics: counts, sizes and times of messages. Nothing that was computed from data.

A process has a registry of its own, so that several in one interpreter do not mix.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 30.0, 120.0)


class ServerMetrics:
    """Counters that the server keeps."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "fmfl_requests",
            "Requests by role, route, method and status.",
            ("role", "route", "method", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "fmfl_request_seconds",
            "Time of a request; questions for work are long by design.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.received = Counter(
            "fmfl_received_bytes", "Bytes of messages taken in.", ("kind",), registry=self.registry
        )

    def request(self, role: str, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request. A path that is no route, and a strange method, share one label."""
        method = method if method in {"GET", "PUT", "POST", "HEAD"} else "other"
        self._requests.labels(role, route or "none", method, str(status)).inc()
        self._seconds.labels(route or "none").observe(seconds)


class ClientMetrics:
    """Counters that a site or the decryptor keeps of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "fmfl_client_requests", "Requests by outcome.", ("outcome",), registry=self.registry
        )
        self.sent = Counter("fmfl_sent_bytes", "Bytes of messages sent.", registry=self.registry)
        self.connected = Gauge(
            "fmfl_connected", "1 while the server answers.", registry=self.registry
        )


def exposition(registry: CollectorRegistry) -> bytes:
    """A registry in the text form that Prometheus reads."""
    return generate_latest(registry)
