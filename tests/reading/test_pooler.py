"""Behind pgbouncer, which gives each transaction another connection, every question is answered all the same."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import pytest

from asgi_analytics.reading import QUESTIONS, AnalyticsReader
from tests.kit import programs
from tests.kit.databases import Database, free_port
from tests.reading.happened import REQUIRED, insert, random_events

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
CONFIGURATION = """
[databases]
analytics = host=127.0.0.1 port={port} dbname={name} user={user} password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
auth_type = any
pool_mode = transaction
default_pool_size = 2
unix_socket_dir =
logfile = {folder}/log
"""


@pytest.fixture
def pooler_dsn(database: Database, reader_dsn: str) -> Iterator[str]:
    """Give the URL of a pgbouncer in front of the database, with two connections for all."""
    if PGBOUNCER is None:
        pytest.skip("pgbouncer is not installed")
    parts = urlsplit(reader_dsn)
    account = programs.account()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        own_port = free_port()
        file = folder / "pgbouncer.ini"
        file.write_text(
            CONFIGURATION.format(
                port=parts.port, name=database.name, user=parts.username, password=parts.password,
                own_port=own_port, folder=folder,
            )
        )  # fmt: skip
        if account is not None:
            for path in (folder, file):
                os.chown(path, *account)
        identity = {} if account is None else {"user": account[0], "group": account[1], "extra_groups": []}
        with subprocess.Popen([PGBOUNCER, "-q", str(file)], **identity) as process:  # type: ignore[call-overload]
            try:
                wait_for(own_port)
                yield f"postgresql://anybody@127.0.0.1:{own_port}/analytics"
            finally:
                process.terminate()


def wait_for(port: int) -> None:
    for _ in range(500):
        with socket.socket() as client:
            client.settimeout(0.2)
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise TimeoutError("pgbouncer does not listen")


@pytest.mark.on_servers("a file needs no pooler")
async def test_questions_share_two_connections(database: Database, pooler_dsn: str) -> None:
    now = datetime.now(UTC)
    await insert(await database.connect(), random_events(Random(1), 300, now - timedelta(days=9), now))
    async with AnalyticsReader.from_url(pooler_dsn, connections=8, statement_timeout=60) as reader:
        await reader.create_funnel("checkout", ["task_created"])
        names = [name for name, one in QUESTIONS.items() if not one.changes and name != "get_error_group"]
        for _ in range(2):
            answers = await asyncio.gather(*[getattr(reader, name)(**REQUIRED.get(name, {})) for name in names])
            assert len(answers) == len(names)
        async with reader.snapshot() as snapshot:
            [(timeout,)] = await snapshot.records("SELECT current_setting('statement_timeout')")
    assert timeout == "1min"
    # Nothing is left of it on the connections of the pooler.
    async with AnalyticsReader.from_url(pooler_dsn, statement_timeout=50) as other, other.snapshot() as snapshot:
        [(default,)] = await snapshot.records("SELECT reset_val FROM pg_settings WHERE name = 'statement_timeout'")
        assert default == "0"
