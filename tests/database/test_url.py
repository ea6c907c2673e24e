"""Database URLs: all the usual kinds are read, and no password is ever shown."""

from __future__ import annotations

import inspect
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from asyncpg import connect_utils
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_analytics.database.url import read_dsn
from asgi_analytics.errors import ConfigError


def as_asyncpg_reads_it(dsn: str) -> Any:
    read = connect_utils._parse_connect_dsn_and_args
    nothing = dict.fromkeys(inspect.signature(read).parameters)
    return read(**{**nothing, "dsn": dsn})


@example("*")
@example("%25")
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_any_password_arrives_and_is_hidden(password: str) -> None:
    for url in (
        f"postgresql://joe:{quote(password, safe='')}@db:5433/shop",
        f"postgres://joe@db:5433/shop?password={quote(password, safe='')}",
        f"postgresql+asyncpg://db:5433/shop?user=joe&password={quote(password, safe='')}",
    ):
        read = read_dsn(url)
        addresses, parameters = as_asyncpg_reads_it(read.dsn)
        assert addresses == [("db", 5433)]
        assert (parameters.user, parameters.password, parameters.database) == ("joe", password, "shop")
        assert str(read) == 'database "shop" on db:5433 as "joe"'
        assert "DatabaseUrl(" + str(read) + ")" == repr(read)
        if password not in str(read):
            assert read.hide(f"{password} {quote(password, safe='')}") == "*** ***"


def test_a_password_that_is_shown_anyway_does_not_spoil_messages() -> None:
    read = read_dsn("postgresql://shop:shop@db/shop")
    assert read.hide(str(read)) == 'database "shop" on db as "shop"'


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql:///shop?host=/run/postgresql", 'database "shop" on /run/postgresql'),
        ("postgresql://joe@a:1,b:2/shop?target_session_attrs=primary", 'database "shop" on a:1,b:2 as "joe"'),
        ("postgresql://[::1]:5432/shop", 'database "shop" on [::1]:5432'),
        ("postgresql://", "the default database on the local server"),
        ("  postgresql://db/shop\n", 'database "shop" on db'),
    ],
)
def test_the_place_is_shown(url: str, place: str) -> None:
    assert str(read_dsn(url)) == place


def test_what_only_libpq_understands_is_left_out() -> None:
    read = read_dsn("postgresql://db/shop?sslmode=require&channel_binding=require&connect_timeout=5&application_name=a")
    _, parameters = as_asyncpg_reads_it(read.dsn)
    assert parameters.sslmode.name == "require"
    assert parameters.server_settings == {"application_name": "a"}


@pytest.mark.parametrize(
    ("url", "sslmode"),
    [
        ("postgresql+asyncpg://db/shop?ssl=require&prepared_statement_cache_size=0", "require"),  # SQLAlchemy
        ("postgresql://db/shop?pgbouncer=true&connection_limit=1&pool_timeout=5&sslaccept=accept_invalid_certs", None),
        ("postgresql://db/shop?sslmode=require&sslaccept=strict", "verify_full"),  # Prisma
        ("postgres://u:p@aws-0-eu.pooler.supabase.com:6543/postgres?sslmode=require&supa=base-pooler.x", "require"),
        ("postgres://u:p@ec2-1.compute.amazonaws.com:5432/d1?sslmode=no-verify", "require"),  # Heroku, node-postgres
        ("postgres://u:p@db/shop?ssl=true&uselibpqcompat=true", "require"),
        ("postgres://u:p@db/shop?ssl=0", "disable"),
        ("postgresql://u:p@x.rds.amazonaws.com/d?sslmode=verify-full&sslrootcert=/etc/rds.pem", "verify_full"),
        ("postgresql://u:p@db/shop?sslrootcert=system", "verify_full"),
        ("postgresql://u:p@db/shop?sslmode=disable&sslrootcert=system", "disable"),
    ],
)
def test_what_other_clients_and_services_put_in_a_url_is_understood(url: str, sslmode: str | None) -> None:
    read = read_dsn(url)
    query = dict(parse_qsl(urlsplit(read.dsn).query))
    assert query.pop("sslmode", None) == (sslmode and sslmode.replace("_", "-"))
    assert set(query) <= {"sslrootcert"}


def test_neon_names_its_endpoint_to_the_server() -> None:
    read = read_dsn("postgresql://u:p@ep-x.neon.tech/d?sslmode=require&options=endpoint%3Dep-x&channel_binding=require")
    _, parameters = as_asyncpg_reads_it(read.dsn)
    assert parameters.server_settings == {"options": "endpoint=ep-x"}


def test_a_schema_may_stand_in_the_url() -> None:
    assert read_dsn("postgresql://db/shop?schema=stats").schema == "stats"
    assert read_dsn("postgresql://db/shop").schema is None
    assert read_dsn("postgresql://db/shop?schema=").schema is None
    with pytest.raises(ConfigError, match="cannot be the name of a schema"):
        read_dsn(f"postgresql://db/shop?schema={'x' * 64}")


@pytest.mark.parametrize("query", ["statement_cache_size=0", "prepared_statement_cache_size=0", "pgbouncer=true"])
def test_prepared_statements_are_switched_off_by_what_other_clients_call_it(query: str) -> None:
    read = read_dsn(f"postgresql://db/shop?{query}")
    assert not read.prepares
    assert read.dsn == "postgresql://db/shop"
    assert read_dsn("postgresql://db/shop?pgbouncer=false&statement_cache_size=100").prepares


@pytest.mark.parametrize(
    "url",
    [
        "hunter2",
        "mysql://joe:hunter2@db/shop",
        "postgresql:joe:hunter2@db/shop",
        "jdbc:postgresql://joe:hunter2@db/shop",
        "postgresql://joe:hun@hunter2@db/shop",
        "postgresql://joe:12/hunter2@db/shop",
        "postgresql://joe:hunter2/x@db/shop",
        "postgresql://joe:12#hunter2@db/shop",
        "postgresql://joe:12?hunter2@db/shop",
        "postgresql://joe:hunter2",
        "postgresql://[hunter2/shop",
        "postgresql://joe@db:hunter2/shop",
        "host=db password=hunter2",
        "postgresql://joe:hunter2@db/shop?sslmode=on",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_and_not_quoted(url: str) -> None:
    with pytest.raises(ConfigError, match="the database URL") as caught:
        read_dsn(url)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
