"""Database servers, and databases on them; `servers.py` finds and starts them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Coroutine, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

from asgi_analytics.migrate.runner import migrate
from tests.kit import programs

T = TypeVar("T")

PASSWORD = "s%cret/p@ss:word"
"""Has all that a careless reader of URLs trips over; `Cluster.dsn` quotes it."""
TIME_ZONE = "America/New_York"
"""Of every session unless it says otherwise: what forgets that days are UTC fails."""
EXTERNAL = "ASGI_ANALYTICS_TEST_TIMESCALE_DSN"
"""Names the variable with the URL of a server that tests may make databases on."""

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "max_wal_size": "256MB",
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


END_ALL = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


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
    """Return a TCP port that nobody listens on.

    It is below the ports that the kernel gives to connections by itself (from 32768): one of these may be in use
    by some connection when a server that takes seconds to start asks for it.
    """
    while True:
        port = 10_000 + secrets.randbelow(22_000)  # not by `random`: Hypothesis seeds it, alike in parallel workers
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


class Server:
    """A running server that databases can be made on: the base of `Cluster`, and the one of a URL by itself."""

    def __init__(self, flavour: str, admin_dsn: str, whose: str) -> None:
        self.flavour = flavour
        self.whose = whose
        self._admin_dsn = admin_dsn
        self._count = 0
        self._templates: dict[date, str | BaseException] = {}
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

    def program(self, name: str) -> str:
        """Return the path of one of PostgreSQL's programs."""
        return shutil.which(name) or name

    def create(self, template: str | None = None) -> str:
        """Make a database, a clone of the template when one is named, and return its name."""
        self._count += 1
        name = f"asgi_analytics_test_{os.getpid()}_{self._count}"
        # Servers of this run write through no log what they need not: to copy the files takes half of the time.
        strategy = " STRATEGY file_copy" if template and self.whose != EXTERNAL else ""
        query(self.dsn(), f'CREATE DATABASE "{name}"' + (f' TEMPLATE "{template}"' if template else "") + strategy)
        self._mine.append(name)
        if self.whose == EXTERNAL:
            query(self.dsn(), f"ALTER DATABASE \"{name}\" SET timezone TO '{TIME_ZONE}'")
        return name

    def drop(self, name: str) -> None:
        """Drop a database, whoever is connected to it."""
        query(self.dsn(), f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        if name in self._mine:
            self._mine.remove(name)

    def template(self) -> str:
        """Return the name of a migrated database to clone; it is migrated once a day, by our own runner.

        What is made ahead, as partitions are, is that of the day on which it was migrated.
        """
        today = datetime.now(UTC).date()
        if today not in self._templates:
            try:
                self._templates[today] = self._make_template()
            except Exception as exc:
                self._templates[today] = exc
        template = self._templates[today]
        if isinstance(template, BaseException):
            raise RuntimeError(f"the migrations fail on {self.version}") from template
        return template

    def _make_template(self) -> str:
        name = self.create()
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
        self.settings = {**SETTINGS, **(TIMESCALE if flavour == "timescaledb" else {}), **settings}
        self._initialise()
        self.start()

    def start(self) -> None:
        """Start the server, on the same port as before, and return when it answers."""
        self._call("pg_ctl", "start", "-w", "-t", "60", "-D", str(self._data), "-l", str(self._log))

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: ``fast`` tells every session (57P01), ``immediate`` is a crash."""
        self._call("pg_ctl", "stop", "-w", "-m", mode, "-D", str(self._data))

    def program(self, name: str) -> str:
        """Return the path of one of the programs that came with this server."""
        return self._programs / name

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
        self.settings.update(settings)
        lines = [f"{name} = '{value}'\n" for name, value in {**self.settings, "port": str(self.port)}.items()]
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

    @property
    def psql(self) -> str:
        """The client program, of this server's installation where it is one of ours."""
        return self.cluster.program("psql")

    async def connect(self, **settings: Any) -> asyncpg.Connection:
        """Return a connection, closed at the end of the test."""
        connection = await asyncpg.connect(self.dsn, **{"timeout": 30, **settings})
        self._connections.append(connection)
        return connection

    async def end_connections(self) -> None:
        """Have the server end all connections, and return when its farewell is read and the stream's end is not yet."""
        query(self.dsn, END_ALL)  # the loop stands still meanwhile
        for _ in range(2):
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Close the connections, in the loop that opened them."""
        for connection in self._connections:
            if not connection.is_closed():
                connection.terminate()
        self._connections.clear()
        await asyncio.sleep(0)  # lets the transports close their sockets
