"""Database URLs: read in one place, made fit for asyncpg, and shown without their secrets."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import msgspec

from asgi_analytics.database.names import checked
from asgi_analytics.errors import ConfigError

EXPECTED = "expected postgresql://user:password@host:5432/database"

LIBPQ_ONLY = frozenset(
    {
        "channel_binding",
        "connect_timeout",
        "fallback_application_name",
        "gssdelegation",
        "gssencmode",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "load_balance_hosts",
        "max_protocol_version",
        "min_protocol_version",
        "require_auth",
        "requirepeer",
        "requiressl",
        "sslcertmode",
        "sslcompression",
        "sslsni",
        "tcp_user_timeout",
    }
)
"""Parameters of libpq that asyncpg would send to the server, which refuses them. Managed services put them in URLs."""

OTHER_CLIENTS = frozenset(
    {
        # SQLAlchemy
        "async_fallback",
        "prepared_statement_name_func",
        # Prisma
        "connection_limit",
        "pool_timeout",
        "socket_timeout",
        # node-postgres
        "uselibpqcompat",
        # Supabase
        "supa",
    }
)
"""Parameters that only concern the pool or the driver of another client."""

WITHOUT_STATEMENTS = {
    "statement_cache_size": ("0",),
    "prepared_statement_cache_size": ("0",),
    "pgbouncer": ("true", "1"),
}
"""Parameters, and the values with which they ask for no prepared statements."""

SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_SECRETIVE = re.compile(r"(://|password=).*", re.DOTALL)
SSL_WORDS = {"true": "require", "1": "require", "false": "disable", "0": "disable", "no-verify": "require"}
"""What other clients write, in ``ssl`` or ``sslmode``, for a mode of libpq."""


class DatabaseUrl(msgspec.Struct, frozen=True):
    """A database's URL; its text form shows where it leads, never a password."""

    dsn: str
    """For asyncpg: no parameter that it or the server would refuse because another client invented it."""
    place: str
    """``database "shop" on db.example.com:5432 as "app"``."""
    secrets: tuple[str, ...]
    schema: str | None = None
    """Where the tables are, if the URL says so: ``?schema=stats``."""
    prepares: bool = True
    """False if the URL asks for no prepared statements: ``?pgbouncer=true`` or ``?statement_cache_size=0``."""
    trusts_system: bool = False
    """The server's certificate is verified by the system's own authorities: ``?sslrootcert=system``."""

    def __str__(self) -> str:
        """Return the place."""
        return self.place

    def __repr__(self) -> str:
        """Return the place too: the generated form would hold the password."""
        return f"DatabaseUrl({self.place})"

    def hide(self, text: str) -> str:
        """Return a text with every form of the password in it replaced by ``***``."""
        forms = "|".join(map(re.escape, self.secrets))  # the longest first
        return re.sub(forms, "***", text) if forms else text


def read_dsn(text: str) -> DatabaseUrl:
    """Read a URL, ``postgres://`` and ``postgresql+driver://`` too. Raises `ConfigError`, which does not quote it."""
    text = text.strip()
    try:
        parts = urlsplit(text)
        fields = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise ConfigError(f"the database URL cannot be read: {EXPECTED}") from None
    scheme = parts.scheme.partition("+")[0]
    if scheme not in ("postgresql", "postgres"):
        raise ConfigError(f"the database URL does not begin with postgresql:// or postgres://: {EXPECTED}")
    if not text[len(parts.scheme) :].startswith("://"):
        raise ConfigError(f"the database URL lacks the // after its scheme: {EXPECTED}")
    userinfo, _, hosts = parts.netloc.rpartition("@")
    if "@" in userinfo or parts.fragment or text.endswith("#") or "@" in parts.path:
        raise ConfigError(
            "the database URL has an @, /, # or ? in its user or password that must be percent-encoded "
            f"(%40, %2F, %23, %3F): {EXPECTED}"
        )
    if not all(re.fullmatch(r"[A-Za-z_][\w.]*", name) for name, _ in fields):
        raise ConfigError(f"the database URL has a parameter whose name cannot be read: {EXPECTED}")
    if not all(re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*)(:\d{1,5})?", host) for host in hosts.split(",")):
        raise ConfigError(f"the database URL has a host or port that cannot be read: {EXPECTED}")

    user, _, password = userinfo.partition(":")
    given = dict(fields)
    secrets = {password, unquote(password), given.get("password", ""), quote(given.get("password", ""), safe="")}
    secrets |= {given.get("sslpassword", "")}
    prepares = not any(given.get(name, "").lower() in values for name, values in WITHOUT_STATEMENTS.items())
    ours = {"schema", "ssl", "sslaccept", *WITHOUT_STATEMENTS}
    left_out = LIBPQ_ONLY | OTHER_CLIENTS | ours
    kept = {name: value for name, value in fields if name not in left_out}
    trusts_system = _read_tls(given, kept)
    user = unquote(user) or given.get("user", "")
    database = unquote(parts.path.lstrip("/")) or given.get("dbname", "") or given.get("database", "")
    place = f'database "{database}"' if database else "the default database"
    place += f" on {hosts or given.get('host') or 'the local server'}"
    place += f' as "{user}"' if user else ""
    query = f"?{urlencode(kept)}" if kept else ""  # asyncpg reads + as a space, as urlencode writes it
    dsn = f"postgresql://{parts.netloc}{parts.path}{query}"
    # A password that is also the name of the user or the database would only make messages unreadable.
    hidden = sorted((secret for secret in secrets if secret and secret not in place), key=len, reverse=True)
    return DatabaseUrl(
        dsn,
        place,
        tuple(hidden),
        schema=checked(given["schema"], "schema") if given.get("schema") else None,
        prepares=prepares,
        trusts_system=trusts_system,
    )


def _read_tls(given: dict[str, str], kept: dict[str, str]) -> bool:
    """Write one ``sslmode`` for what any client calls it; return whether the system's authorities are trusted."""
    if "ssl" in given:
        kept.setdefault("sslmode", given["ssl"])
    if "sslmode" in kept:
        mode = kept["sslmode"] = SSL_WORDS.get(kept["sslmode"].lower(), kept["sslmode"])
        if mode not in SSL_MODES:
            raise ConfigError(f"unknown sslmode in the database URL: use one of {', '.join(SSL_MODES)}")
    is_strict = given.get("sslaccept") == "strict"
    trusts_system = given.get("sslrootcert") == "system" or (is_strict and "sslrootcert" not in given)
    if (is_strict or trusts_system) and kept.get("sslmode") != "disable":
        kept["sslmode"] = "verify-full"  # as libpq and Prisma do; anything weaker would trust any server
    if trusts_system:
        kept.pop("sslrootcert", None)
    return trusts_system and kept.get("sslmode") != "disable"


def without_urls(text: str) -> str:
    """Return a text cut where a URL's user and password, or a password, begins: nothing tells how long it is."""
    return _SECRETIVE.sub(r"\1***", text)
