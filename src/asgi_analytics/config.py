"""The settings of a client: checked when they are made, and read from an environment."""

from __future__ import annotations

import difflib
import math
import os
import re
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from asgi_analytics import values
from asgi_analytics.errors import ConfigError
from asgi_analytics.log import log_problem
from asgi_analytics.values import GIB, KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asgi_analytics.events.base import Event


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of an `AnalyticsClient`. Raises `ConfigError` for a value out of its range."""

    service: str
    """Name of the service; stored in the column ``service`` of every row."""
    environment: str | None = None
    """Where the service runs (production, staging); stored in the context of every event."""
    hash_key: str | bytes | None = None
    """Secret key of the HMAC-SHA256 that personal fields are stored as. Without a key they are stored as ``***``."""
    keep_personal_data: bool = False
    """Store personal fields unchanged."""
    batch_size: int = 100
    """How many waiting events wake the worker."""
    flush_interval: float = 10.0
    """Seconds after which the worker writes what waits, however little. At 0 it writes each event at once."""
    queue_size: int = 10_000
    """How many events may wait. Beyond that new ones are dropped; captured ones already from 80 %."""
    queue_bytes: int = 64 * MIB
    """How many bytes of events may wait."""
    max_event_bytes: int = 256 * KIB
    """The largest encoded event, in bytes."""
    close_timeout: float = 10.0
    """Seconds for the flush at lifespan shutdown and at interpreter exit. At 0 it does not wait."""
    before_track: Callable[[Event], Event | None] | None = None
    """Called with each event, its user filled in, before it is encoded. Returns this event, another one, or None to
    drop it."""
    enabled: bool = True
    """If False, ``track()`` returns False and counts nothing, and no worker starts."""
    geoip_database: str | None = None
    """Path of a database of places (.mmdb), for the country of a caller; needs the extra ``web``."""
    strict: bool = False
    """Raise instead of returning False; for development and tests."""
    metrics_interval: float = 60.0
    """Seconds between two rows of one series of `AnalyticsClient.metrics`."""
    metrics_series: int = 2_000
    """How many series the metrics of a process may have; what is beyond is stored with the tag ``overflow``."""
    pipeline_metrics: bool = False
    """Store the figures of ``stats()`` as metrics too, ``analytics.events.…``, every ``metrics_interval``."""
    spool: str | os.PathLike[str] | None = None
    """A folder for what cannot be stored now, of a client made from a URL. It is made, mode 0700, when it is needed."""
    spool_bytes: int = GIB
    """How many bytes of events a process may keep there, those that it adopts included."""
    spool_mode: Literal["overflow", "always"] = "overflow"
    """``overflow`` keeps events there while the sink fails and the queue is half full, and at close; ``always`` writes
    each event there before it is sent."""
    spool_interval: float = 0.1
    """Seconds after which ``always`` writes what waits: so much is lost, at most, if the process is killed."""
    spool_sync: bool = False
    """Wait until the disk has what is written, so that it outlives a power cut too."""

    def __post_init__(self) -> None:
        """Check what the types do not express."""
        if not isinstance(self.service, str) or not self.service.strip():
            raise ConfigError("service is empty: name the service, AnalyticsClient(service='shop')")
        for name in ("batch_size", "queue_size", "queue_bytes", "max_event_bytes", "metrics_series", "spool_bytes"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} is {value!r}: use a whole number from 1")
        for name in ("flush_interval", "close_timeout"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ConfigError(f"{name} is {value!r}: use seconds from 0")
        for name in ("metrics_interval", "spool_interval"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ConfigError(f"{name} is {value!r}: use seconds above 0")
        if self.spool_mode not in ("overflow", "always"):
            raise ConfigError(f"spool_mode is {self.spool_mode!r}: use 'overflow' or 'always'")
        if self.spool is not None and (not isinstance(self.spool, str | os.PathLike) or not os.fspath(self.spool)):
            raise ConfigError(f"spool is {self.spool!r}: use the path of a folder")
        for name in ("enabled", "strict", "keep_personal_data", "pipeline_metrics", "spool_sync"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} is {getattr(self, name)!r}: use True or False")
        if self.before_track is not None and not callable(self.before_track):
            raise ConfigError("before_track must be a callable that takes an event and returns an event or None")
        if self.environment is not None and not isinstance(self.environment, str):
            raise ConfigError(f"environment is {self.environment!r}: use a str")
        if self.geoip_database is not None and (not isinstance(self.geoip_database, str) or not self.geoip_database):
            raise ConfigError(f"geoip_database is {self.geoip_database!r}: use the path of an .mmdb file")
        if self.hash_key is not None and (not isinstance(self.hash_key, str | bytes) or not self.hash_key):
            raise ConfigError("hash_key must be a non-empty str or bytes")
        # Bytes of a variable that are not UTF-8 arrive as these surrogates, which encode to the same bytes again.
        # Other surrogates cannot be encoded.
        if isinstance(self.hash_key, str) and re.search("[\ud800-\udc7f\udd00-\udfff]", self.hash_key):
            raise ConfigError("hash_key holds surrogates, which cannot be encoded: use a non-empty str or bytes")

    def __repr__(self) -> str:
        """Return the settings without the key."""
        shown = {n: getattr(self, n) for n in self.__struct_fields__ if n != "hash_key"}
        return f"Settings({', '.join(f'{n}={v!r}' for n, v in shown.items())})"


VARIABLES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "ANALYTICS_URL": ("url", str),
    "ANALYTICS_TOKEN": ("token", str),
    "ANALYTICS_SERVICE": ("service", str),
    "ANALYTICS_ENVIRONMENT": ("environment", str),
    "ANALYTICS_HASH_KEY": ("hash_key", str),
    "ANALYTICS_KEEP_PERSONAL_DATA": ("keep_personal_data", values.flag),
    "ANALYTICS_BATCH_SIZE": ("batch_size", values.count),
    "ANALYTICS_FLUSH_INTERVAL": ("flush_interval", values.seconds),
    "ANALYTICS_QUEUE_SIZE": ("queue_size", values.count),
    "ANALYTICS_QUEUE_BYTES": ("queue_bytes", values.size),
    "ANALYTICS_MAX_EVENT_BYTES": ("max_event_bytes", values.size),
    "ANALYTICS_CLOSE_TIMEOUT": ("close_timeout", values.seconds),
    "ANALYTICS_GEOIP_DATABASE": ("geoip_database", str),
    "ANALYTICS_ENABLED": ("enabled", values.flag),
    "ANALYTICS_STRICT": ("strict", values.flag),
    "ANALYTICS_METRICS_INTERVAL": ("metrics_interval", values.positive_seconds),
    "ANALYTICS_METRICS_SERIES": ("metrics_series", values.count),
    "ANALYTICS_PIPELINE_METRICS": ("pipeline_metrics", values.flag),
    "ANALYTICS_SPOOL": ("spool", str),
    "ANALYTICS_SPOOL_BYTES": ("spool_bytes", values.size),
    "ANALYTICS_SPOOL_MODE": ("spool_mode", str),
    "ANALYTICS_SPOOL_INTERVAL": ("spool_interval", values.positive_seconds),
    "ANALYTICS_SPOOL_SYNC": ("spool_sync", values.flag),
}
"""Each variable with its setting and the function that reads its text. An empty variable counts as not set."""

PREFIX = "ANALYTICS_"
SERVICE_VARIABLES = frozenset({"ANALYTICS_TOKENS", "ANALYTICS_READ_TOKENS"})
"""Variables that only the services read; an environment may hold them beside those of a client."""


def from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings that an environment names.

    An unknown variable whose name resembles a known one is logged as a warning, since it is probably a typing error.
    Raises `ConfigError` that names the variable; a text that cannot be read is not quoted.
    """
    settings: dict[str, Any] = {}
    for variable, (name, read) in VARIABLES.items():
        text = environ.get(variable, "")
        if text == "":
            continue
        try:
            settings[name] = read(text)
        except ValueError as error:
            raise ConfigError(f"{variable}: {error}") from None
        if name in Settings.__struct_fields__:
            try:
                Settings(**{"service": "any", name: settings[name]})
            except ConfigError as error:
                raise ConfigError(f"{variable}: {error}") from None
    for name in environ:
        if (known := _misspelt(name)) is not None:
            log_problem((__name__, name), "the variable %s is unknown and ignored; did you mean %s?", name, known)
    return settings


def _misspelt(name: str) -> str | None:
    """Return the variable that a name was probably meant to be; None for a known name, and for other programs'."""
    if not name.startswith(PREFIX) or name in VARIABLES or name in SERVICE_VARIABLES:
        return None
    word = name.removeprefix(PREFIX)
    words = [known.removeprefix(PREFIX) for known in VARIABLES]
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.75)
    near += [known for known in words if len(word) > 2 and (known.startswith(word) or word.startswith(known))]
    return PREFIX + near[0] if near else None
