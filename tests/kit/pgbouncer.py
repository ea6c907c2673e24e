"""PgBouncer in front of a test's database, in transaction mode unless a test says otherwise."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests.kit import programs
from tests.kit.databases import PASSWORD, Database, free_port

SETTINGS = {
    "pool_mode": "transaction",
    "default_pool_size": "4",
    "listen_addr": "127.0.0.1",
    "unix_socket_dir": "",
    "auth_type": "scram-sha-256",
    "server_login_retry": "0.1",
}

UNTIL_STDIN_ENDS = '"$1" "$2" & read _; kill $!; wait $!'
"""Runs a program that ends with this process, however that ends."""


class PgBouncer:
    """A pooler on a port of 127.0.0.1. It lets in the superuser and ``users``, all with the usual password.

    With a ``certificate``, whose key lies beside it, it lets in by TLS only.
    """

    def __init__(self, database: Database, *users: str, certificate: Path | None = None, **settings: str) -> None:
        program = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin:/opt/homebrew/bin")
        if program is None:
            pytest.skip("pgbouncer is not installed: apt install pgbouncer")
        self._database = database
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="asgi-analytics-pgbouncer-"))
        account = programs.account()
        names = "".join(f'"{user}" "{PASSWORD}"\n' for user in ("postgres", *users))
        (self._folder / "users").write_text(names)
        options = {
            **SETTINGS,
            "listen_port": str(self.port),
            "auth_file": str(self._folder / "users"),
            "logfile": str(self._folder / "log"),
            **settings,
        }
        if certificate is not None:
            options["client_tls_sslmode"] = "require"
            for option, ending in (("client_tls_cert_file", ".crt"), ("client_tls_key_file", ".key")):
                copy = self._folder / f"server{ending}"
                shutil.copyfile(certificate.with_suffix(ending), copy)
                options[option] = str(copy)
        lines = ["[databases]", f"* = host={database.cluster.host} port={database.cluster.port}", "[pgbouncer]"]
        lines += [f"{name} = {value}" for name, value in options.items()]
        (self._folder / "pgbouncer.ini").write_text("\n".join(lines) + "\n")
        identity: dict[str, int | list[int]] = {}
        if account:
            for path in (self._folder, *self._folder.iterdir()):
                shutil.chown(path, *account)
            identity = {"user": account[0], "group": account[1], "extra_groups": []}
        self._process = subprocess.Popen(
            ["sh", "-c", UNTIL_STDIN_ENDS, "sh", program, str(self._folder / "pgbouncer.ini")],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._folder,
            **identity,  # type: ignore[call-overload]  # one dict for three options
        )
        self._wait()

    @property
    def dsn(self) -> str:
        """The URL of the test's database through the pooler, as the superuser."""
        return self.through(self._database.dsn)

    def through(self, dsn: str) -> str:
        """Return the URL that leads to the same database as the same user through the pooler."""
        parts = urlsplit(dsn)
        user = parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{self.port}"))

    def close(self) -> None:
        """End the pooler and its connections."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _wait(self) -> None:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    log = self._folder / "log"
                    raise RuntimeError(log.read_text() if log.exists() else "pgbouncer did not start") from None
            time.sleep(0.02)
