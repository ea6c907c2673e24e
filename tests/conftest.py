"""Databases and a network for every test; `servers.py`, `databases.py` and `proxy.py` say how."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from tests.databases import Cluster, Database
from tests.proxy import Proxy
from tests.servers import Servers

SERVERS = Servers()


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """Give the servers of this run; nothing starts before it is asked for."""
    yield SERVERS
    SERVERS.close()


@pytest.fixture(params=SERVERS.available)
async def database(request: pytest.FixtureRequest, servers: Servers) -> AsyncIterator[Database]:
    """Give a migrated database of this test's own, once for each kind of server there is.

    ``@pytest.mark.parametrize("database", ["timescaledb"], indirect=True)`` runs on that kind only.
    """
    server = servers.shared(request.param)
    database = Database(server, server.create(template=server.template()))
    yield database
    await database.close()
    server.drop(database.name)


@pytest.fixture(params=SERVERS.available)
async def empty_database(request: pytest.FixtureRequest, servers: Servers) -> AsyncIterator[Database]:
    """Give a database of this test's own that holds nothing: no schema, no extension."""
    server = servers.shared(request.param)
    database = Database(server, server.create())
    yield database
    await database.close()
    server.drop(database.name)


@pytest.fixture(params=SERVERS.available)
async def private_database(request: pytest.FixtureRequest, servers: Servers) -> AsyncIterator[Database]:
    """Give a migrated database on a server of this test's own: ``.cluster`` may be stopped and started."""
    cluster = servers.private(request.param)
    database = Database(cluster, cluster.template())
    yield database
    await database.close()
    cluster.end()


@pytest.fixture
def make_cluster(servers: Servers) -> Iterator[Callable[..., Cluster]]:
    """Give ``make_cluster(flavour, {setting: value})``: servers of this test's own with settings of their own."""
    made: list[Cluster] = []

    def make(flavour: str, settings: dict[str, str] | None = None) -> Cluster:
        made.append(servers.private(flavour, settings))
        return made[-1]

    yield make
    for cluster in made:
        cluster.end()


@pytest.fixture
def make_proxy() -> Iterator[Callable[..., Proxy]]:
    """Give ``make_proxy(database)`` or ``make_proxy(host, port)``: proxies that end with the test."""
    made: list[Proxy] = []

    def make(target: Database | str, port: int | None = None) -> Proxy:
        if isinstance(target, Database):
            made.append(Proxy(target.cluster.host, target.cluster.port, target.dsn))
        else:
            assert port is not None
            made.append(Proxy(target, port))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


@pytest.fixture
def proxy(database: Database, make_proxy: Callable[..., Proxy]) -> Proxy:
    """Give a proxy in front of this test's ``database``; connect to ``proxy.dsn``."""
    return make_proxy(database)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say on which databases the tests ran, and which were left out."""
    lines = list(SERVERS.summary())
    if SERVERS.used:
        terminalreporter.section("databases")
    for line in lines if SERVERS.used else ():
        terminalreporter.line(line)
