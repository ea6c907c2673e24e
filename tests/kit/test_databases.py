"""What the other tests stand on: the databases, the servers and the proxy do what their names say."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from tests.kit.databases import TIME_ZONE, Cluster, Database
from tests.kit.proxy import Proxy


async def test_an_empty_database_holds_nothing(empty_database: Database) -> None:
    connection = await empty_database.connect()
    assert await connection.fetchval("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == 0
    assert await connection.fetchval("SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'") == 0
    assert await connection.fetchval("SHOW timezone") == TIME_ZONE


def test_a_test_that_is_not_async_gets_a_database_too(empty_database: Database) -> None:
    assert empty_database.name in empty_database.dsn


async def test_a_server_of_ones_own_stops_and_starts_on_its_port(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster("postgresql", {"work_mem": "5MB"})
    before = cluster.dsn()
    cluster.stop()
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await asyncpg.connect(cluster.dsn())
    cluster.start()
    assert cluster.dsn() == before
    connection = await asyncpg.connect(cluster.dsn())
    assert await connection.fetchval("SHOW work_mem") == "5MB"
    await connection.close()


@pytest.mark.parametrize("empty_database", ["postgresql"], indirect=True)  # a server that is not ours may trust all
async def test_a_wrong_password_is_refused(empty_database: Database) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(empty_database.cluster.dsn(user="postgres", password="wrong"))


@pytest.fixture
def wire(empty_database: Database, make_proxy: Callable[..., Proxy]) -> Proxy:
    return make_proxy(empty_database)


async def test_the_proxy_cuts(wire: Proxy) -> None:
    connection = await asyncpg.connect(wire.dsn)
    assert await connection.fetchval("SELECT 1") == 1
    wire.cut()
    with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError)):
        await connection.fetchval("SELECT 1")
    connection.terminate()


async def test_the_proxy_refuses_and_accepts_again(wire: Proxy) -> None:
    wire.refuse()
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await asyncpg.connect(wire.dsn)
    wire.accept()
    connection = await asyncpg.connect(wire.dsn)
    await connection.close()
    assert wire.connections == 1


async def test_the_proxy_stalls_and_resumes(wire: Proxy) -> None:
    connection = await asyncpg.connect(wire.dsn)
    wire.stall()
    waiting = asyncio.ensure_future(connection.fetchval("SELECT 1"))
    done, _ = await asyncio.wait([waiting], timeout=0.1)
    assert not done
    wire.resume()
    assert await waiting == 1
    await connection.close()


async def test_a_lost_answer_leaves_the_row_stored(wire: Proxy, empty_database: Database) -> None:
    direct = await empty_database.connect()
    await direct.execute("CREATE TABLE t (x int)")
    connection = await asyncpg.connect(wire.dsn)
    wire.lose_answer(b"INSERT 0")
    with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError)):
        await connection.execute("INSERT INTO t VALUES ($1)", 1)
    connection.terminate()
    assert wire.lost == 1
    assert await direct.fetchval("SELECT count(*) FROM t") == 1


async def test_a_lost_request_never_reaches_the_server(wire: Proxy, empty_database: Database) -> None:
    direct = await empty_database.connect()
    await direct.execute("CREATE TABLE t (x int)")
    connection = await asyncpg.connect(wire.dsn)
    wire.lose_request(b"INSERT")
    with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError)):
        await connection.execute("INSERT INTO t VALUES (1)")
    connection.terminate()
    assert await direct.fetchval("SELECT count(*) FROM t") == 0


STARTED_AND_LEFT = """
import time
from tests.kit.servers import Servers
servers = Servers()
servers.shared("postgresql")
print(*servers.folders(), flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_server_and_no_folder_outlives_the_tests(how: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", STARTED_AND_LEFT],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=hear_sigint,
    )
    with process:
        assert process.stdout is not None
        folders = [Path(folder) for folder in process.stdout.readline().split()]
        [pidfile] = [pidfile for folder in folders for pidfile in folder.glob("*/data/postmaster.pid")]
        server = int(pidfile.read_text().split()[0])
        process.send_signal(how)
    while any(folder.exists() for folder in folders) or is_running(server):
        time.sleep(0.02)


def hear_sigint() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def is_running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:1]
    except OSError:
        return False
