"""The pipeline's own figures as OpenTelemetry metrics, ``analytics.events.*``; nothing without an SDK."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from opentelemetry import metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from asgi_analytics._queue import Stats
    from asgi_analytics.config import Settings


class Observed(Protocol):
    """What is asked for figures."""

    settings: Settings

    def stats(self) -> Stats:
        """Return the figures of this moment."""


_COUNTERS = {
    "accepted": "Events for which track() returned True",
    "dropped": "Events for which track() returned False, by reason",
    "stored": "Events that the sink wrote",
    "duplicates": "Events that were there already",
    "rejected": "Events that the sink refused for their content, by reason",
    "abandoned": "Events left when the time of a close ended",
    "retries": "Writes that were tried again",
    "batches": "Writes that were answered",
}
_GAUGES = {
    "queued": ("{event}", "Events that wait"),
    "in_flight": ("{event}", "Events of the batch that is being written"),
    "oldest_seconds": ("s", "Age of the oldest event that is not settled"),
}

_observed: Collection[Observed] | None = None


def observe(clients: Collection[Observed]) -> None:
    """Publish the figures of the clients in a collection, which may change; the first call counts."""
    global _observed
    if _observed is not None:
        return
    _observed = clients
    meter = metrics.get_meter("asgi_analytics")
    for name, description in _COUNTERS.items():
        unit = "{write}" if name in ("retries", "batches") else "{event}"
        meter.create_observable_counter(
            f"analytics.events.{name}", callbacks=[_callback(name)], unit=unit, description=description
        )
    for name, (unit, description) in _GAUGES.items():
        meter.create_observable_gauge(
            f"analytics.events.{name}", callbacks=[_callback(name)], unit=unit, description=description
        )


def _callback(name: str) -> Callable[[metrics.CallbackOptions], Iterable[metrics.Observation]]:
    def read(options: metrics.CallbackOptions) -> Iterator[metrics.Observation]:
        # Clients of one service are one series: two observations with the same attributes would hide one of them.
        sums: dict[tuple[str, str | None], float] = {}
        for client in list(_observed or ()):
            value = client.stats()[name]
            for reason, number in value.items() if isinstance(value, dict) else [(None, value)]:
                key = (client.settings.service, reason)
                sums[key] = max(sums.get(key, 0), number) if name == "oldest_seconds" else sums.get(key, 0) + number
        for (service, reason), number in sums.items():
            yield metrics.Observation(number, {"service": service} | ({"reason": reason} if reason else {}))

    return read
