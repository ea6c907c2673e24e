"""Databases, a network and clients for every test; `servers.py`, `databases.py` and `proxy.py` say how."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import re
import sys
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from hypothesis import settings

from asgi_analytics import AnalyticsClient
from asgi_analytics.context import current
from tests.kit.databases import Cluster, Database
from tests.kit.pgbouncer import PgBouncer
from tests.kit.proxy import Proxy
from tests.kit.servers import Servers, summary

SERVERS = Servers()
ON_ANY_SERVER = tuple(
    f"tests/{name}"
    for name in (
        "admin/test_roles", "cli/", "database/", "encoding/", "exports/test_kills",
        "faults/", "instrumentation/", "packing/", "pipeline/",
        "reading/test_parameters", "reading/test_reader", "sinks/", "test_injection", "web/", "worker/",
    )
)  # fmt: skip
"""Where tests are about processes, networks and what both kinds do alike: each runs on one kind of server, chosen by
its name, so that each kind meets about half of them. Where they are about SQL, each runs on every kind."""
VARYING = re.compile(r"GMT$|^[0-9a-f]{8}-[0-9a-f]{4}-")
WORKERS: list[dict[str, dict[str, Any]]] = []
STANDARD_ERROR = pytest.StashKey[int]()


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


@pytest.fixture
def make_pgbouncer() -> Iterator[Callable[..., PgBouncer]]:
    """Give ``make_pgbouncer(database, *users, **settings)``: poolers that end with the test."""
    made: list[PgBouncer] = []

    def make(database: Database, *users: str, **settings: Any) -> PgBouncer:
        made.append(PgBouncer(database, *users, **settings))
        return made[-1]

    yield make
    for pooler in made:
        pooler.close()


@pytest.fixture
def make_client() -> Callable[..., AnalyticsClient]:
    """Give ``make_client(**settings)``: clients whose worker wakes for 1 event unless a setting says otherwise."""

    def make(**settings: Any) -> AnalyticsClient:
        return AnalyticsClient(service="shop", **{"batch_size": 1, "flush_interval": 3600, **settings})

    return make


@pytest.fixture
def outside_a_request() -> Iterator[None]:
    """Let `set_user` and its like, which last as long as the context, end with the test."""
    token = current.set(None)
    yield
    current.reset(token)


@pytest.fixture
def restless() -> Iterator[None]:
    """Let threads come in between any two steps."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--quick``, ``--each-server`` and ``--any-server``."""
    parser.addoption("--quick", action="store_true", help="leave out what needs a database or another process")
    parser.addoption("--each-server", action="store_true", help="run every test on each kind of server of databases")
    parser.addoption("--any-server", action="store_true", help="run every test on one kind, also those about SQL")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what is not asked for: see the options, and `ON_ANY_SERVER`."""
    left_out = {item for item in items if "[sqlite" in item.nodeid and item.get_closest_marker("on_servers")}
    if config.getoption("--quick"):
        left_out |= {item for item in items if _needs_more_than_this_process(item)}
    if not config.getoption("--each-server"):
        where = ("",) if config.getoption("--any-server") else ON_ANY_SERVER
        left_out |= set(_repeated_on_another_server(items, where))
    config.hook.pytest_deselected(items=[item for item in items if item in left_out])
    items[:] = [item for item in items if item not in left_out]


def _repeated_on_another_server(items: list[pytest.Item], where: tuple[str, ...]) -> Iterator[pytest.Item]:
    """Yield the tests in some folders that would run on one more kind of server."""
    runs: dict[str, list[pytest.Item]] = {}
    for item in items:
        name = re.sub("|".join(SERVERS.available), "", item.nodeid)
        if name != item.nodeid and name.startswith(where):
            runs.setdefault(name, []).append(item)
    for name, same in runs.items():
        chosen = zlib.crc32(name.encode()) % len(same)  # as every parallel worker chooses
        yield from (item for number, item in enumerate(same) if number != chosen)


def _needs_more_than_this_process(item: pytest.Item) -> bool:
    modules = [getattr(item, "module", None)]
    modules += [sys.modules[base.__module__] for base in getattr(getattr(item, "cls", None), "__mro__", ())]
    known = {name for module in modules if module is not None for name in vars(module)}
    starting = {"subprocess", "run_script", "Serving", "serving", "run_witnessed", "Process", "start_command"}
    starts_programs = not known.isdisjoint(starting)
    return starts_programs or not {"servers", "browser"}.isdisjoint(getattr(item, "fixturenames", ()))


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Give what differs from run to run a name that does not: parallel workers must collect the same tests."""
    if isinstance(val, UUID | bytes) or (isinstance(val, str) and VARYING.search(val)):
        return argname
    return None


def pytest_configure(config: pytest.Config) -> None:
    """Keep the real standard error, which the capture of output takes away, for `_end_when_it_hangs`.

    How long an example of Hypothesis takes tells how busy the machine is, and nothing else.
    """
    settings.register_profile("any machine", deadline=None)
    settings.load_profile("any machine")
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
        config.stash[STANDARD_ERROR] = os.dup(2)


def _end_when_it_hangs(config: pytest.Config) -> None:
    """End this process with the stacks of its threads unless it is told so again in time.

    pytest-timeout fails a test, but cannot end one that waits for a thread while the failure passes through it, nor
    what comes after the tests.
    """
    limit = 2 * float(config.getoption("timeout") or config.getini("timeout")) + 60
    faulthandler.dump_traceback_later(limit, exit=True, file=config.stash[STANDARD_ERROR])


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give the test, with what it needs, its time."""
    _end_when_it_hangs(item.config)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Give what comes after the test its time."""
    _end_when_it_hangs(item.config)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let a parallel worker tell the controller on what it ran."""
    if hasattr(session.config, "workeroutput"):
        _end_when_it_hangs(session.config)
    else:
        faulthandler.cancel_dump_traceback_later()
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["databases"] = SERVERS.report()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what a parallel worker tells."""
    WORKERS.append(getattr(node, "workeroutput", {}).get("databases", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say on which databases the tests ran, and which were left out."""
    lines = summary([SERVERS.report(), *WORKERS])
    if lines:
        terminalreporter.section("databases")
    for line in lines:
        terminalreporter.line(line)
