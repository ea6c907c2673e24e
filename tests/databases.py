"""Database servers for the tests: embedded PostgreSQL always, TimescaleDB wherever one is found.

Nothing starts before a test asks for it. Servers live in one temporary folder that a janitor process empties, and whose
servers it ends, when this process is gone, however it went.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

from tests import programs

T = TypeVar("T")

PASSWORD = "s%cret/p@ss:word"
"""Has all that a careless reader of URLs trips over; `Cluster.dsn` quotes it."""
TIME_ZONE = "America/New_York"
"""Of every session unless it says otherwise: what forgets that days are UTC fails."""
EXTERNAL = "ASGI_ANALYTICS_TEST_TIMESCALE_DSN"

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "timezone": TIME_ZONE,
    "log_timezone": "UTC",
    "password_encryption": "scram-sha-256",
}
TIMESCALE = {
    "shared_preload_libraries": "timescaledb",
    "timescaledb.telemetry_level": "off",
    "timescaledb.max_background_workers": "0",  # no scheduler: databases can be cloned, jobs run by CALL run_job
}

JANITOR = """
import contextlib, os, pathlib, shutil, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.stdin.buffer.read()
root = pathlib.Path(sys.argv[1])
running = list(root.glob("*/data/postmaster.pid"))
for pidfile in running:
    with contextlib.suppress(OSError, ValueError, IndexError):
        os.kill(int(pidfile.read_text().split()[0]), signal.SIGQUIT)
deadline = time.monotonic() + 10
while any(pidfile.exists() for pidfile in running) and time.monotonic() < deadline:
    time.sleep(0.02)
shutil.rmtree(root, ignore_errors=True)
"""


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in a thread and loop of its own: works below a running loop as well."""
    outcome: list[T] = []
    error: list[BaseException] = []

    def target() -> None:
        try:
            outcome.append(asyncio.run(coroutine))
        except BaseException as exc:
            error.append(exc)

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    if error:
        raise error[0]
    return outcome[0]


async def _query(dsn: str, sql: str) -> Any:
    connection = await asyncpg.connect(dsn, timeout=30)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


def query(dsn: str, sql: str) -> Any:
    """Run one statement on a connection of its own and return the first value."""
    return run(_query(dsn, sql))


def with_database(dsn: str, name: str) -> str:
    """Return the URL with another database."""
    return urlunsplit(urlsplit(dsn)._replace(path="/" + quote(name, safe="")))


def free_port() -> int:
    """Return a TCP port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Server:
    """A running server that databases can be made on: the base of `Cluster`, and the one of a URL by itself."""

    def __init__(self, flavour: str, admin_dsn: str, whose: str) -> None:
        self.flavour = flavour
        self.whose = whose
        self._admin_dsn = admin_dsn
        self._count = 0
        self._template: str | BaseException | None = None
        self._version = ""
        self._mine: list[str] = []

    @property
    def host(self) -> str:
        """Where it listens."""
        return urlsplit(self._admin_dsn).hostname or "127.0.0.1"

    @property
    def port(self) -> int:
        """The TCP port it listens on."""
        return urlsplit(self._admin_dsn).port or 5432

    @property
    def version(self) -> str:
        """``PostgreSQL 18.6`` or ``TimescaleDB 2.29.2 on PostgreSQL 18.6``."""
        if not self._version:
            server = query(self.dsn(), "SELECT split_part(current_setting('server_version'), ' ', 1)")
            self._version = f"PostgreSQL {server}"
            if self.flavour == "timescaledb":
                sql = "SELECT default_version FROM pg_available_extensions WHERE name = 'timescaledb'"
                self._version = f"TimescaleDB {query(self.dsn(), sql)} on {self._version}"
        return self._version

    def dsn(self, dbname: str = "postgres", user: str | None = None, password: str | None = None) -> str:
        """Return a URL for a database, as the superuser unless another user is named."""
        parts = urlsplit(self._admin_dsn)
        if dbname == "postgres":
            dbname = parts.path.lstrip("/") or dbname
        if user is not None:
            secret = quote(PASSWORD if password is None else password, safe="")
            host = parts.netloc.rpartition("@")[2]
            parts = parts._replace(netloc=f"{quote(user, safe='')}:{secret}@{host}")
        return with_database(urlunsplit(parts), dbname)

    def create(self, template: str | None = None) -> str:
        """Make a database, a clone of the template when one is named, and return its name."""
        self._count += 1
        name = f"asgi_analytics_test_{os.getpid()}_{self._count}"
        query(self.dsn(), f'CREATE DATABASE "{name}"' + (f' TEMPLATE "{template}"' if template else ""))
        self._mine.append(name)
        return name

    def drop(self, name: str) -> None:
        """Drop a database, whoever is connected to it."""
        query(self.dsn(), f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        if name in self._mine:
            self._mine.remove(name)

    def template(self) -> str:
        """Return the name of a migrated database to clone; it is migrated once, by our own runner."""
        if self._template is None:
            try:
                self._template = self._make_template()
            except Exception as exc:
                self._template = exc
        if isinstance(self._template, BaseException):
            raise RuntimeError(f"the migrations fail on {self.version}") from self._template
        return self._template

    def _make_template(self) -> str:
        name = self.create()
        try:
            migrate = importlib.import_module("asgi_analytics.migrate.runner").migrate
        except ImportError:  # until there is a runner
            return name
        report = run(migrate(self.dsn(name)))
        assert report.flavour == self.flavour, f"{self.version} was taken for {report.flavour}: {report.warnings}"
        if self.whose == EXTERNAL:  # its scheduler would connect to the template, and a clone needs it alone
            query(self.dsn(name), "SELECT _timescaledb_functions.stop_background_workers()")
            query(self.dsn(), f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
            query(self.dsn(), f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{name}'")
        return name

    def forget(self) -> None:
        """Drop what is left on a server that is not ours."""
        for name in list(self._mine):
            self.drop(name)


class Cluster(Server):
    """A server of our own in a temporary folder: listens on 127.0.0.1, demands SCRAM passwords, can be stopped."""

    def __init__(
        self,
        flavour: str,
        found: programs.Programs,
        folder: Path,
        run_as: tuple[int, int] | None,
        settings: Mapping[str, str],
    ) -> None:
        admin_dsn = f"postgresql://postgres:{quote(PASSWORD, safe='')}@127.0.0.1:{free_port()}/postgres"
        super().__init__(flavour, admin_dsn, found.whose)
        self._programs = found
        self._folder = folder
        self._data = folder / "data"
        self._log = folder / "log"
        self._run_as = run_as
        self._settings = {**SETTINGS, **(TIMESCALE if flavour == "timescaledb" else {}), **settings}
        self._initialise()
        self.start()

    def start(self) -> None:
        """Start the server, on the same port as before, and return when it answers."""
        self._call("pg_ctl", "start", "-w", "-t", "60", "-D", str(self._data), "-l", str(self._log))

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: ``fast`` tells every session (57P01), ``immediate`` is a crash."""
        self._call("pg_ctl", "stop", "-w", "-m", mode, "-D", str(self._data))

    def restart(self, mode: str = "fast") -> None:
        """Stop and start."""
        self.stop(mode)
        self.start()

    def end(self) -> None:
        """Stop the server if it runs, and remove its folder."""
        if (self._data / "postmaster.pid").exists():
            self.stop("immediate")
        shutil.rmtree(self._folder, ignore_errors=True)

    def configure(self, settings: Mapping[str, str]) -> None:
        """Change settings of the configuration file; they hold from the next start."""
        self._settings.update(settings)
        lines = [f"{name} = '{value}'\n" for name, value in {**self._settings, "port": str(self.port)}.items()]
        (self._data / "postgresql.conf").write_text("".join(lines))

    def allow(self, *rules: str) -> None:
        """Replace the rules of pg_hba.conf; they hold from the next start. None: the usual SCRAM from 127.0.0.1."""
        (self._data / "pg_hba.conf").write_text("\n".join(rules or ("host all all 127.0.0.1/32 scram-sha-256",)) + "\n")

    def _initialise(self) -> None:
        self._folder.mkdir()
        secret = self._folder / "password"
        secret.write_text(PASSWORD)
        if self._run_as:
            shutil.chown(self._folder, *self._run_as)
            shutil.chown(secret, *self._run_as)
        self._call(
            "initdb", "-D", str(self._data), "-U", "postgres", "--pwfile", str(secret), "-A", "scram-sha-256",
            "-E", "UTF8", "--no-locale", "--no-sync", "--no-instructions",
        )  # fmt: skip
        self.configure({})
        self.allow()

    def _call(self, program: str, *arguments: str) -> None:
        identity: dict[str, Any] = {}
        if self._run_as:
            identity = {"user": self._run_as[0], "group": self._run_as[1], "extra_groups": []}
        with tempfile.TemporaryFile() as output:  # no pipe: the server would inherit it and keep it open
            done = subprocess.run(
                [self._programs / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._folder,
                start_new_session=True,
                env={**os.environ, "LC_ALL": "C", "TZ": "UTC"},
                check=False,
                **identity,
            )
            if done.returncode:
                output.seek(0)
                log = self._log.read_text(errors="replace") if self._log.exists() else ""
                raise RuntimeError(f"{program}: {output.read().decode(errors='replace')}\n{log[-2000:]}")


class Database:
    """One database of a test."""

    def __init__(self, server: Server, name: str) -> None:
        self.cluster = server
        self.name = name
        self.dsn = server.dsn(name)
        self.flavour = server.flavour
        self.version = server.version
        self._connections: list[asyncpg.Connection] = []

    async def connect(self, **settings: Any) -> asyncpg.Connection:
        """Return a connection, closed at the end of the test."""
        connection = await asyncpg.connect(self.dsn, **{"timeout": 30, **settings})
        self._connections.append(connection)
        return connection

    async def close(self) -> None:
        """Close the connections, in the loop that opened them."""
        for connection in self._connections:
            if not connection.is_closed():
                connection.terminate()
        self._connections.clear()
        await asyncio.sleep(0)  # lets the transports close their sockets


class Servers:
    """The servers of one test run: what there is, what was left out and why, what was used."""

    def __init__(self) -> None:
        self.left_out: dict[str, str] = {}
        self.used: dict[str, tuple[Server, int]] = {}
        self._found: dict[str, programs.Programs] = {}
        self._shared: dict[str, Server] = {}
        self._root: Path | None = None
        self._janitor: subprocess.Popen[bytes] | None = None
        self._run_as: tuple[int, int] | None = None
        self._private = 0
        self._external = os.environ.get(EXTERNAL, "")
        for flavour, found in (("postgresql", programs.embedded()), ("timescaledb", programs.with_timescaledb())):
            if isinstance(found, programs.Programs):
                self._found[flavour] = found
            elif flavour != "timescaledb" or not self._external:
                self.left_out[flavour] = found

    @property
    def available(self) -> list[str]:
        """The flavours that tests run on."""
        return [flavour for flavour in ("postgresql", "timescaledb") if flavour not in self.left_out]

    def shared(self, flavour: str) -> Server:
        """Return the server that all tests share, started at the first call; skips the test when there is none."""
        self._require(flavour)
        if flavour not in self._shared:
            try:
                self._shared[flavour] = self._start(flavour)
            except Exception as exc:
                self.left_out[flavour] = f"it does not start: {str(exc).strip().splitlines()[-1]}"
                raise
            if flavour == "timescaledb":
                self._demand_full_licence(self._shared[flavour])
        self._note(self._shared[flavour])
        return self._shared[flavour]

    def private(self, flavour: str, settings: Mapping[str, str] | None = None) -> Cluster:
        """Start a server for one test; it may be stopped, or have settings of its own."""
        self._require(flavour)
        if flavour not in self._found:
            import pytest

            pytest.skip(f"{flavour}: no server programs to start one of our own ({EXTERNAL} is used)")
        cluster = self._cluster(flavour, settings or {})
        self._note(cluster)
        return cluster

    def close(self) -> None:
        """End all servers and remove their folder."""
        for server in self._shared.values():
            if server.whose == EXTERNAL:
                server.forget()
        if self._janitor is not None:
            assert self._janitor.stdin is not None
            self._janitor.stdin.close()
            self._janitor.wait()
            self._janitor = None

    def summary(self) -> Iterable[str]:
        """Say on what the tests ran, line by line."""
        for flavour in ("postgresql", "timescaledb"):
            if flavour in self.used:
                server, tests = self.used[flavour]
                yield f"{flavour}: {server.version} ({server.whose}), asked for {tests} times"
            if flavour in self.left_out:
                yield f"{flavour}: LEFT OUT, {self.left_out[flavour]}"

    def _require(self, flavour: str) -> None:
        if flavour in self.left_out:
            import pytest

            pytest.skip(f"{flavour}: {self.left_out[flavour]}")

    def _start(self, flavour: str) -> Server:
        if flavour == "timescaledb" and self._external:
            return Server(flavour, self._external, EXTERNAL)
        return self._cluster(flavour, {})

    def _cluster(self, flavour: str, settings: Mapping[str, str]) -> Cluster:
        root = self._folder()
        self._private += 1
        found = programs.reachable(self._found[flavour], self._run_as, root)
        self._found[flavour] = found
        return Cluster(flavour, found, root / f"{flavour}-{self._private}", self._run_as, settings)

    def _folder(self) -> Path:
        if self._root is None:
            self._run_as = programs.account()
            self._root = Path(tempfile.mkdtemp(prefix="asgi-analytics-"))
            self._root.chmod(0o755)
            self._janitor = subprocess.Popen(
                [sys.executable, "-c", JANITOR, str(self._root)], stdin=subprocess.PIPE, start_new_session=True
            )
        return self._root

    def _note(self, server: Server) -> None:
        assert server.version  # asked while it runs
        first, tests = self.used.get(server.flavour, (server, 0))
        self.used[server.flavour] = (first, tests + 1)

    def _demand_full_licence(self, server: Server) -> None:
        name = server.create()
        licence = run(_licence(server.dsn(name)))
        server.drop(name)
        if licence != "timescale":
            self.left_out["timescaledb"] = f"{server.version} has the licence {licence}: no continuous aggregates"
            self._require("timescaledb")


async def _licence(dsn: str) -> str:
    connection = await asyncpg.connect(dsn, timeout=30)
    try:
        await connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
        return str(await connection.fetchval("SELECT current_setting('timescaledb.license')"))
    finally:
        await connection.close()
