"""The client whose events are looked at, a request, and the database of the driver contract."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from asgi_analytics.context import RequestContext, current
from asgi_analytics.testing import CapturedEvents, capture_events
from tests.conftest import SERVERS
from tests.kit.databases import query
from tests.kit.servers import Servers


@pytest.fixture(scope="module", params=SERVERS.available)
def things(request: pytest.FixtureRequest, servers: Servers) -> Iterator[str]:
    """Give the URL of a database with three things, on each kind of server; no test of the contract leaves others."""
    server = servers.shared(request.param)
    name = server.create()
    query(server.dsn(name), "CREATE TABLE things (id int PRIMARY KEY, name text NOT NULL)")
    query(server.dsn(name), "INSERT INTO things VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    yield server.dsn(name)
    server.drop(name)


@pytest.fixture
def captured() -> Iterator[CapturedEvents]:
    with capture_events() as captured:
        yield captured


@pytest.fixture
def request_context() -> Iterator[RequestContext]:
    request = RequestContext()
    request.method, request.endpoint = "GET", "/things/{id}"
    token = current.set(request)
    yield request
    current.reset(token)
