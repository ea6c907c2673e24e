"""The servers of a test run: embedded PostgreSQL always, TimescaleDB wherever one is found.

Nothing starts before a test asks for it. Servers live in temporary folders that a janitor process empties, and whose
servers it ends, when this process is gone, however it went.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.kit import programs
from tests.kit.databases import EXTERNAL, Cluster, Server, run

JANITOR = """
import contextlib, os, pathlib, shutil, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.stdin.buffer.read()
roots = list(map(pathlib.Path, sys.argv[1:]))
running = [pidfile for root in roots for pidfile in root.glob("*/data/postmaster.pid")]
for pidfile in running:
    with contextlib.suppress(OSError, ValueError, IndexError):
        os.kill(int(pidfile.read_text().split()[0]), signal.SIGQUIT)
deadline = time.monotonic() + 10
while any(pidfile.exists() for pidfile in running) and time.monotonic() < deadline:
    time.sleep(0.02)
for root in roots:
    shutil.rmtree(root, ignore_errors=True)
"""


def roomy_memory() -> str | None:
    """Return the folder that lies in memory, where a database is made ten times faster, or None: the usual one."""
    memory = "/dev/shm"
    with contextlib.suppress(OSError):
        if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 4 * 1024**3:
            return memory
    return None


def summary(reports: Iterable[dict[str, dict[str, Any]]]) -> list[str]:
    """Say on what the tests ran, line by line; nothing when no test asked for a database."""
    reports = list(reports)
    lines = []
    for flavour in ("postgresql", "timescaledb"):
        used = [report["used"][flavour] for report in reports if flavour in report.get("used", {})]
        if used:
            lines.append(f"{flavour}: {used[0][0]}, asked for {sum(tests for _, tests in used)} times")
        left_out = [report["left_out"][flavour] for report in reports if flavour in report.get("left_out", {})]
        if left_out:
            lines.append(f"{flavour}: LEFT OUT, {left_out[0]}")
    return lines if any(report.get("used") for report in reports) else []


class Servers:
    """The servers of one test run: what there is, what was left out and why, what was used."""

    def __init__(self) -> None:
        self.left_out: dict[str, str] = {}
        self.used: dict[str, tuple[Server, int]] = {}
        self._found: dict[str, programs.Programs] = {}
        self._shared: dict[str, Server] = {}
        self._root: Path | None = None
        self._scratch: Path | None = None
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

    def folders(self) -> tuple[Path, Path]:
        """Return where the servers live, and where programs are copied to; made at the first call."""
        if self._root is None or self._scratch is None:
            self._run_as = programs.account()
            self._root, self._scratch = (
                Path(tempfile.mkdtemp(prefix="asgi-analytics-", dir=place)) for place in (roomy_memory(), None)
            )
            self._root.chmod(0o755)
            self._scratch.chmod(0o755)
            self._janitor = subprocess.Popen(
                [sys.executable, "-c", JANITOR, self._root, self._scratch],
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
        return self._root, self._scratch

    def report(self) -> dict[str, dict[str, Any]]:
        """Return what `summary` says, as plain values: a parallel worker hands it to the controller."""
        used = {f: [f"{server.version} ({server.whose})", tests] for f, (server, tests) in self.used.items()}
        return {"used": used, "left_out": dict(self.left_out)}

    def _require(self, flavour: str) -> None:
        if flavour in self.left_out:
            pytest.skip(f"{flavour}: {self.left_out[flavour]}")

    def _start(self, flavour: str) -> Server:
        if flavour == "timescaledb" and self._external:
            return Server(flavour, self._external, EXTERNAL)
        return self._cluster(flavour, {})

    def _cluster(self, flavour: str, settings: Mapping[str, str]) -> Cluster:
        root, scratch = self.folders()
        self._private += 1
        found = programs.reachable(self._found[flavour], self._run_as, scratch)
        self._found[flavour] = found
        return Cluster(flavour, found, root / f"{flavour}-{self._private}", self._run_as, settings)

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
