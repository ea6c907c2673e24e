"""What a database is taken for, that it is said, and that an installation stays what it was made for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from asgi_analytics.errors import ConfigError
from asgi_analytics.migrate.runner import dry_run, migrate, status
from asgi_analytics.migrate.session import TimescaleRequired
from tests.kit.databases import PASSWORD, Cluster, Database, query
from tests.kit.servers import Servers


@pytest.fixture(scope="module")
def cluster(servers: Servers) -> Iterator[Cluster]:
    """Give a server with TimescaleDB's programs whose settings the tests change."""
    cluster = servers.private("timescaledb")
    yield cluster
    cluster.end()


@pytest.fixture
def full(cluster: Cluster) -> str:
    """Give an empty database of a server with all of TimescaleDB."""
    return with_settings(cluster, "timescaledb", "timescale")


@pytest.fixture
def apache(cluster: Cluster) -> str:
    """Give an empty database of a server with the Apache licence."""
    return with_settings(cluster, "timescaledb", "apache")


@pytest.fixture
def not_preloaded(cluster: Cluster) -> str:
    """Give an empty database of a server that has the extension and was not told to preload it."""
    return with_settings(cluster, "", "timescale")


def with_settings(cluster: Cluster, preloaded: str, licence: str) -> str:
    wanted = {"shared_preload_libraries": preloaded, "timescaledb.license": licence}
    if any(cluster.settings.get(name) != value for name, value in wanted.items()):
        cluster.configure(wanted)
        cluster.restart()
    return cluster.dsn(cluster.create())


def extensions(dsn: str) -> int:
    return int(query(dsn, "SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'"))


async def test_apache_licence_goes_on_as_plain_with_one_warning(apache: str, folder: Path) -> None:
    for look in (status, dry_run):
        report = await look(apache, folder=folder)
        assert report.flavour == "postgresql"
        assert extensions(apache) == 0
    report = await migrate(apache, folder=folder)
    assert (report.flavour, report.database) == ("postgresql", report.database)
    assert report.database.startswith("PostgreSQL ")
    [warning] = report.warnings
    assert "licence 'apache'" in warning
    assert "timescaledb.license = 'timescale'" in warning
    assert extensions(apache) == 0, "an extension that is of no use was left behind"
    assert (await migrate(apache, folder=folder)).warnings == (), "said once is enough"


async def test_apache_licence_with_the_extension_there_goes_on_as_plain(apache: str, folder: Path) -> None:
    query(apache, "CREATE EXTENSION timescaledb")
    report = await migrate(apache, folder=folder)
    assert report.flavour == "postgresql"
    assert "licence 'apache'" in report.warnings[0]


async def test_not_preloaded_goes_on_as_plain_with_one_warning(not_preloaded: str, folder: Path) -> None:
    report = await migrate(not_preloaded, folder=folder)
    assert report.flavour == "postgresql"
    [warning] = report.warnings
    assert "add timescaledb to shared_preload_libraries and restart" in warning
    assert len(report.applied) == 4


async def test_a_fatal_answer_to_create_extension_costs_only_the_second_connection(
    not_preloaded: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as if the loader's settings were there: what a server does that loads the library in another way
    from asgi_analytics.database import flavour

    sql = {name: flavour.SQL[name] for name in flavour.SQL}
    sql["facts"] = sql["facts"].replace("EXISTS (SELECT FROM", "NOT EXISTS (SELECT FROM")
    monkeypatch.setattr(flavour, "SQL", sql)
    report = await migrate(not_preloaded, folder=folder)
    assert report.flavour == "postgresql"
    assert "shared_preload_libraries" in report.warnings[0]


async def test_not_installed_goes_on_as_plain_with_one_warning(servers: Servers, folder: Path) -> None:
    server = servers.shared("postgresql")
    name = server.create()
    report = await migrate(server.dsn(name), folder=folder)
    assert report.flavour == "postgresql"
    [warning] = report.warnings
    assert "not installed on this server: install it" in warning
    server.drop(name)


async def test_without_the_right_to_create_it_goes_on_as_plain_with_one_warning(
    full: str, cluster: Cluster, folder: Path
) -> None:
    name = full.rpartition("/")[2]
    query(full, "CREATE ROLE guest LOGIN PASSWORD 'secret'")
    query(full, "GRANT CREATE ON SCHEMA public TO guest")
    guest = cluster.dsn(name, user="guest", password="secret")
    assert (await status(guest, folder=folder)).flavour == "postgresql"
    report = await migrate(guest, folder=folder)
    assert report.flavour == "postgresql"
    [warning] = report.warnings
    assert f'GRANT CREATE ON DATABASE "{name}" TO "guest"' in warning
    assert len(report.applied) == 4


@pytest.mark.usefixtures("servers")
@pytest.mark.parametrize("world", ["apache", "not_preloaded"])
async def test_required_timescaledb_refuses_plain_and_changes_nothing(
    world: str, request: pytest.FixtureRequest, folder: Path
) -> None:
    dsn = request.getfixturevalue(world)
    for run in (migrate, status, dry_run):
        with pytest.raises(TimescaleRequired, match="--require-timescaledb refuses"):
            await run(dsn, folder=folder, require_timescaledb=True)
    assert query(dsn, "SELECT count(*) FROM pg_class WHERE relname = 'analytics_migrations'") == 0


async def test_required_timescaledb_is_content_with_the_full_licence(full: str, folder: Path) -> None:
    report = await migrate(full, folder=folder, require_timescaledb=True)
    assert (report.flavour, report.warnings) == ("timescaledb", ())


async def test_a_plain_installation_stays_plain_when_the_extension_comes(
    not_preloaded: str, cluster: Cluster, folder: Path, folder_of: Callable[..., Path]
) -> None:
    await migrate(not_preloaded, folder=folder, phase="pre")
    cluster.configure({"shared_preload_libraries": "timescaledb"})
    cluster.restart()
    report = await status(not_preloaded, folder=folder)
    assert report.flavour == "postgresql"
    assert "stays so, although TimescaleDB" in report.notes[0]
    with pytest.raises(TimescaleRequired, match="installed for plain PostgreSQL"):
        await migrate(not_preloaded, folder=folder, require_timescaledb=True)
    report = await migrate(not_preloaded, folder=folder)
    assert [step.name for step in report.applied] == ["002_post_view.sql", "005_post_plain.sql"]
    assert extensions(not_preloaded) == 0

    query(not_preloaded, "COMMENT ON TABLE analytics_migrations IS NULL")
    assert (await status(not_preloaded, folder=folder)).flavour == "postgresql", "the rows of the ledger tell it too"


async def test_an_installation_for_timescaledb_is_never_continued_as_plain(
    full: str, cluster: Cluster, folder: Path
) -> None:
    await migrate(full, folder=folder, phase="pre")
    cluster.configure({"timescaledb.license": "apache"})
    cluster.restart()
    report = await status(full, folder=folder)
    assert report.flavour == "timescaledb"
    assert "installed for TimescaleDB, which cannot be used now" in report.warnings[0]
    with pytest.raises(TimescaleRequired, match=r"002_post_view\.sql is for TimescaleDB.*timescaledb\.license"):
        await migrate(full, folder=folder)
    cluster.configure({"timescaledb.license": "timescale"})
    cluster.restart()
    assert len((await migrate(full, folder=folder)).applied) == 2


async def test_the_extension_may_live_in_a_schema_of_its_own(full: str, folder: Path) -> None:
    query(full, "CREATE SCHEMA ext")
    query(full, 'CREATE EXTENSION timescaledb SCHEMA "ext"')
    report = await migrate(full, folder=folder, schema="ours")
    assert report.flavour == "timescaledb"
    assert [step.name for step in report.applied][-1] == "004_post_hyper.sql"


async def test_a_database_without_public_takes_the_extension_elsewhere(full: str, folder: Path) -> None:
    query(full, "DROP SCHEMA public")
    with pytest.raises(ConfigError, match="no schema of the search_path exists"):
        await migrate(full, folder=folder)
    report = await migrate(full, folder=folder, schema="ours")
    assert (report.flavour, len(report.applied)) == ("timescaledb", 4)


async def test_an_open_connection_creates_the_extension_itself(full: str, folder: Path) -> None:
    connection = await asyncpg.connect(full)
    try:
        report = await migrate(connection, folder=folder)
    finally:
        await connection.close()
    assert report.flavour == "timescaledb"
    assert extensions(full) == 1


@pytest.mark.parametrize("empty_database", ["timescaledb"], indirect=True)
async def test_a_role_that_may_not_use_the_schema_of_timescaledb_is_told_before_anything_is_made(
    empty_database: Database,
) -> None:
    server, owner = empty_database.cluster, f"owner_of_{empty_database.name}"
    connection = await empty_database.connect()
    await connection.execute("CREATE SCHEMA ext; CREATE EXTENSION timescaledb SCHEMA ext")
    await connection.execute(f"CREATE ROLE {owner} LOGIN PASSWORD '{PASSWORD}'")
    await connection.execute(f'GRANT CREATE ON DATABASE "{empty_database.name}" TO {owner}')
    dsn = server.dsn(empty_database.name, owner)
    try:
        for run in (migrate, dry_run):
            with pytest.raises(TimescaleRequired, match=f'run GRANT USAGE ON SCHEMA "ext" TO "{owner}"'):
                await run(dsn, schema="own")
        assert await connection.fetchval("SELECT to_regnamespace('own')") is None
        assert (await status(dsn, schema="own")).flavour == "timescaledb"
        await connection.execute(f"GRANT USAGE ON SCHEMA ext TO {owner}")
        assert (await dry_run(dsn, schema="own")).pending
    finally:
        await connection.execute(f"DROP OWNED BY {owner} CASCADE; DROP ROLE {owner}")
