"""A second server that follows a first one, and can take its place."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.kit.databases import PASSWORD, Cluster, Database


class Standby(Cluster):
    """A streaming replica of a `Cluster`, which answers a commit only when the replica has it too."""

    def __init__(self, primary: Cluster) -> None:
        self._primary = primary
        folder = primary._folder.with_name(f"{primary._folder.name}-standby")
        super().__init__(primary.flavour, primary._programs, folder, primary._run_as, {})

    def _initialise(self) -> None:
        primary = self._primary
        primary.allow("host all,replication all 127.0.0.1/32 scram-sha-256")
        primary.stop()
        subprocess.run(["cp", "-a", primary._folder, self._folder], check=True)
        self.configure(
            {"primary_conninfo": f"host={primary.host} port={primary.port} password={PASSWORD} user=postgres"}
        )
        (self._data / "standby.signal").touch()
        primary.configure({"synchronous_commit": "remote_apply", "synchronous_standby_names": "*"})
        primary.start()

    def promote(self) -> None:
        """End following, and return when it takes writes."""
        self._call("pg_ctl", "promote", "-w", "-t", "60", "-D", str(self._data))


@pytest.fixture
def cluster(private_database: Database) -> Cluster:
    """Give the server of the test's own database."""
    assert isinstance(private_database.cluster, Cluster)
    return private_database.cluster


@pytest.fixture
def standby(cluster: Cluster) -> Iterator[Standby]:
    """Give a standby that follows it."""
    standby = Standby(cluster)
    yield standby
    standby.end()
