"""The settings of a client, checked when it is made, and how they are read from an environment."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import msgspec

from asgi_analytics.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asgi_analytics.events.base import Event

KIB = 1024
MIB = 1024 * KIB


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of an `AnalyticsClient`. Raises `ConfigError` for a value out of its range."""

    service: str
    """Name of the service, the column ``service`` of every row."""
    environment: str | None = None
    """Where it runs (production, staging), in the context of every event."""
    hash_key: str | bytes | None = None
    """Secret key of the HMAC-SHA256 under which personal fields are stored; without one they are stored as ``***``."""
    keep_personal_data: bool = False
    """Store personal fields as they are."""
    batch_size: int = 100
    """How many waiting events wake the worker."""
    flush_interval: float = 10.0
    """Seconds after which the worker writes what waits, however little. At zero it writes each event at once."""
    queue_size: int = 10_000
    """How many events may wait; the newest is dropped beyond, captured ones from 80 %."""
    queue_bytes: int = 64 * MIB
    """How many bytes of events may wait."""
    max_event_bytes: int = 256 * KIB
    """The largest event, encoded, in bytes."""
    close_timeout: float = 10.0
    """Seconds for the flush at lifespan shutdown and at interpreter exit. At zero nothing is waited for."""
    before_track: Callable[[Event], Event | None] | None = None
    """Called with each event before it is encoded, the request's user in it: returns it, another one, or None."""
    enabled: bool = True
    """False: ``track()`` returns False, counts nothing, and no worker starts."""
    strict: bool = False
    """Raise instead of returning False, in development and tests."""

    def __post_init__(self) -> None:
        """Check what types alone cannot say."""
        if not isinstance(self.service, str) or not self.service.strip():
            raise ConfigError("service is empty: name the service, AnalyticsClient(service='shop')")
        for name in ("batch_size", "queue_size", "queue_bytes", "max_event_bytes"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} is {value!r}: use a whole number from 1")
        for name in ("flush_interval", "close_timeout"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ConfigError(f"{name} is {value!r}: use seconds from 0")
        for name in ("enabled", "strict", "keep_personal_data"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} is {getattr(self, name)!r}: use True or False")
        if self.before_track is not None and not callable(self.before_track):
            raise ConfigError("before_track is no function: use a function of an event that returns it or None")
        if self.environment is not None and not isinstance(self.environment, str):
            raise ConfigError(f"environment is {self.environment!r}: use a str")
        if self.hash_key is not None and (not isinstance(self.hash_key, str | bytes) or not self.hash_key):
            raise ConfigError("hash_key is empty or no text: use a secret str or bytes")

    def __repr__(self) -> str:
        """Return the settings without the key."""
        shown = {n: getattr(self, n) for n in self.__struct_fields__ if n != "hash_key"}
        return f"Settings({', '.join(f'{n}={v!r}' for n, v in shown.items())})"


_UNITS = {"": 1, "kib": KIB, "mib": MIB, "gib": 1024 * MIB}


def _size(text: str) -> int:
    match = re.fullmatch(r"\s*(\d+)\s*(|kib|mib|gib)\s*", text.lower())
    if match is None:
        raise ValueError("use bytes, or a number with KiB, MiB or GiB")
    return int(match[1]) * _UNITS[match[2]]


def _count(text: str) -> int:
    if re.fullmatch(r"\s*\d+\s*", text) is None:
        raise ValueError("use a whole number")
    return int(text)


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("use seconds, 0.5 or 10") from None


def _flag(text: str) -> bool:
    lowered = text.strip().lower()
    if lowered in ("1", "true", "yes", "on"):
        return True
    if lowered in ("0", "false", "no", "off"):
        return False
    raise ValueError("use true or false")


VARIABLES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "ANALYTICS_URL": ("url", str),
    "ANALYTICS_TOKEN": ("token", str),
    "ANALYTICS_SERVICE": ("service", str),
    "ANALYTICS_ENVIRONMENT": ("environment", str),
    "ANALYTICS_HASH_KEY": ("hash_key", str),
    "ANALYTICS_KEEP_PERSONAL_DATA": ("keep_personal_data", _flag),
    "ANALYTICS_BATCH_SIZE": ("batch_size", _count),
    "ANALYTICS_FLUSH_INTERVAL": ("flush_interval", _seconds),
    "ANALYTICS_QUEUE_SIZE": ("queue_size", _count),
    "ANALYTICS_QUEUE_BYTES": ("queue_bytes", _size),
    "ANALYTICS_MAX_EVENT_BYTES": ("max_event_bytes", _size),
    "ANALYTICS_CLOSE_TIMEOUT": ("close_timeout", _seconds),
    "ANALYTICS_ENABLED": ("enabled", _flag),
    "ANALYTICS_STRICT": ("strict", _flag),
}
"""Each variable with the setting it holds and how its text is read; empty ones count as not set."""


def from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings that an environment names.

    Raises `ConfigError` that names the variable; what cannot be read is not quoted.
    """
    settings: dict[str, Any] = {}
    for variable, (name, read) in VARIABLES.items():
        text = environ.get(variable, "")
        if text == "":
            continue
        try:
            settings[name] = read(text)
        except ValueError as error:
            raise ConfigError(f"{variable} cannot be read: {error}") from None
        if name in Settings.__struct_fields__:
            try:
                Settings(**{"service": "any", name: settings[name]})
            except ConfigError as error:
                raise ConfigError(f"{variable}: {error}") from None
    return settings
