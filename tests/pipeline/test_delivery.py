"""Delivery: one worker per client, and who it is."""

from __future__ import annotations

import time

import pytest

from asgi_analytics.config import Settings
from asgi_analytics.encoding.records import Source
from asgi_analytics.errors import ConfigError
from asgi_analytics.pipeline.delivery import Delivery
from asgi_analytics.pipeline.ledger import Ledger
from asgi_analytics.pipeline.queue import EventQueue
from asgi_analytics.pipeline.series import SeriesTable
from tests.kit.queues import make, put


def make_delivery() -> tuple[EventQueue, Ledger, Delivery]:
    queue, ledger = make()
    series = SeriesTable(queue, ledger, Source.of("shop", None, None), time.time_ns, max_series=10)
    return queue, ledger, Delivery(Settings(service="shop"), queue, ledger, series)


def test_a_client_has_one_worker() -> None:
    _queue, _ledger, delivery = make_delivery()

    def first() -> None: ...

    delivery.attach(first, lambda: True)
    with pytest.raises(ConfigError, match="one client, one worker"):
        delivery.attach(lambda: None, lambda: True)
    delivery.detach(first)
    delivery.attach(lambda: None, lambda: True)


def test_a_dead_worker_is_replaced_and_cannot_take_the_queue_from_the_new_one() -> None:
    queue, ledger, delivery = make_delivery()
    put(queue)

    def old() -> None: ...

    def new() -> None: ...

    delivery.attach(old, lambda: False)
    batch = ledger.take(1, 1000)
    assert not delivery.has_worker()
    delivery.attach(new, lambda: True)
    assert ledger.read(0.0).queued == 1
    ledger.take(1, 1000)
    ledger.settle(batch, duplicates=0, rejected=[])
    delivery.detach(old)
    stats = ledger.read(0.0)
    assert (stats.in_flight, stats.stored) == (1, 0)
    assert delivery.owner is new
    assert delivery.has_worker()
