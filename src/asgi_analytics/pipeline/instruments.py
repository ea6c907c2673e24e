"""The pipeline's own figures as metrics, ``analytics.events.*``: of OpenTelemetry, which needs an SDK, and of ours."""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakSet, finalize

from opentelemetry import metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from asgi_analytics.config import Settings
    from asgi_analytics.pipeline.ledger import Ledger
    from asgi_analytics.pipeline.stats import Stats


class Observed(Protocol):
    """What is asked for figures."""

    settings: Settings
    _ledger: Ledger

    def stats(self) -> Stats:
        """Return the figures of this moment."""


_COUNTERS = {
    "accepted": "Events for which track() returned True",
    "dropped": "Events for which track() returned False, by reason",
    "stored": "Events that the sink wrote",
    "duplicates": "Events that were there already",
    "rejected": "Events that the sink refused for their content, by reason",
    "abandoned": "Events left when the time of a close ended",
    "recovered": "Events of dead processes that were settled from the spools that they left",
    "damaged": "Lines of such spools that could not be read",
    "retries": "Writes that were tried again",
    "batches": "Writes that were answered",
}
_GAUGES = {
    "queued": ("{event}", "Events that wait"),
    "in_flight": ("{event}", "Events of the batch that is being written"),
    "spooled": ("{event}", "Events that are on disk and not settled"),
    "oldest_seconds": ("s", "Age of the oldest event that is not settled"),
}


class Recording(Protocol):
    """What has figures, and takes metrics."""

    metrics: Any

    def stats(self) -> Stats:
        """Return the figures of this moment."""


class PipelineFigures:
    """Records the figures of a client among its own metrics: what was counted since the last time, and what waits."""

    def __init__(self) -> None:
        self._counted: dict[tuple[str, str | None], float] = {}

    def record(self, client: Recording) -> None:
        """Record the figures of this moment."""
        stats = client.stats()
        for name in _COUNTERS:
            unit = "{write}" if name in ("retries", "batches") else "{event}"
            for (_, reason), number in _numbers("", stats, name):
                before = self._counted.get((name, reason), 0)
                self._counted[name, reason] = number
                if number > before:
                    tags = {} if reason is None else {"reason": reason}
                    client.metrics.counter(f"analytics.events.{name}", number - before, unit=unit, **tags)
        for name, (unit, _) in _GAUGES.items():
            client.metrics.gauge(f"analytics.events.{name}", stats[name], unit=unit)


_observed: WeakSet[Observed] = WeakSet()
_published = False
# What clients had counted that are no more: a counter must not go back. Appended to by the garbage collector, in the
# middle of anything, and added up elsewhere.
_collected: deque[tuple[str, Stats]] = deque()
_collected_sums: dict[str, dict[tuple[str, str | None], float]] = {}
_adding = threading.Lock()


def observe(client: Observed) -> None:
    """Publish the figures of a client, and keep what it has counted when it is collected as garbage."""
    global _published
    _observed.add(client)
    if not _published:
        _published = True
        _publish()
    _add_collected()
    service, ledger = client.settings.service, client._ledger
    # No other code has the ledger by then, so its lock is free.
    finalize(client, lambda: _collected.append((service, ledger.read(0.0)))).atexit = False


def _forget_collected() -> None:
    """Start from nothing, in the child of a fork: its parent goes on counting."""
    global _adding
    _adding = threading.Lock()
    _collected.clear()
    _collected_sums.clear()


def _add_collected() -> None:
    with _adding:
        while _collected:
            service, stats = _collected.popleft()
            for name in _COUNTERS:
                sums = _collected_sums.setdefault(name, {})
                for key, number in _numbers(service, stats, name):
                    sums[key] = sums.get(key, 0) + number


def _numbers(service: str, stats: Stats, name: str) -> Iterator[tuple[tuple[str, str | None], float]]:
    value = stats[name]
    for reason, number in value.items() if isinstance(value, dict) else [(None, value)]:
        yield (service, reason), number


def _publish() -> None:
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
        clients = list(_observed)  # held, so that none of them is collected between here and its figures
        _add_collected()
        with _adding:
            sums = dict(_collected_sums.get(name, {}))
        for client in clients:
            for key, number in _numbers(client.settings.service, client.stats(), name):
                sums[key] = max(sums.get(key, 0), number) if name == "oldest_seconds" else sums.get(key, 0) + number
        for (service, reason), number in sums.items():
            yield metrics.Observation(number, {"service": service} | ({"reason": reason} if reason else {}))

    return read


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_collected)
