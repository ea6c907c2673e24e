"""Database URLs: read in one place for all, made fit for asyncpg, and shown without their secrets."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import msgspec

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

SQLALCHEMY_ONLY = frozenset({"async_fallback", "prepared_statement_cache_size", "prepared_statement_name_func"})
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_SECRETIVE = re.compile(r"(://|password=).*", re.DOTALL)
SSL_WORDS = {"true": "require", "1": "require", "false": "disable", "0": "disable"}


class DatabaseUrl(msgspec.Struct, frozen=True):
    """A database's URL; its text form shows where it leads, never a password."""

    dsn: str
    """For asyncpg."""
    place: str
    """``database "shop" on db.example.com:5432 as "app"``."""
    secrets: tuple[str, ...]

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
    """Read a URL: ``postgres://`` and ``postgresql+driver://`` too. Raises `ConfigError`, which quotes no part."""
    text = text.strip()
    try:
        parts = urlsplit(text)
        fields = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise ConfigError(f"the database URL cannot be read: {EXPECTED}") from None
    scheme, _, driver = parts.scheme.partition("+")
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
    kept = {name: value for name, value in fields if name not in LIBPQ_ONLY}
    if driver:
        kept = {name: value for name, value in kept.items() if name not in SQLALCHEMY_ONLY}
        if "ssl" in kept:
            word = kept.pop("ssl")
            kept.setdefault("sslmode", SSL_WORDS.get(word.lower(), word))
    if kept.get("sslmode", "prefer") not in SSL_MODES:
        raise ConfigError(f"the database URL has an sslmode that is none: use one of {', '.join(SSL_MODES)}")
    user = unquote(user) or given.get("user", "")
    database = unquote(parts.path.lstrip("/")) or given.get("dbname", "") or given.get("database", "")
    place = f'database "{database}"' if database else "the default database"
    place += f" on {hosts or given.get('host') or 'the local server'}"
    place += f' as "{user}"' if user else ""
    query = f"?{urlencode(kept)}" if kept else ""  # asyncpg reads + as a blank, as urlencode writes it
    dsn = f"postgresql://{parts.netloc}{parts.path}{query}"
    # a password that is the user's or the database's name as well would only make messages unreadable
    hidden = sorted((secret for secret in secrets if secret and secret not in place), key=len, reverse=True)
    return DatabaseUrl(dsn, place, tuple(hidden))


def without_urls(text: str) -> str:
    """Return a text that ends where the rest of a URL begins, or a password: who knows how long it is."""
    return _SECRETIVE.sub(r"\1***", text)
