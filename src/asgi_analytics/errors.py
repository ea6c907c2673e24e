"""The errors that asgi-analytics raises, drawn once.

::

    AnalyticsError
    ├── ConfigError (ValueError)         a setting, a URL or a declaration is wrong: fix the program
    │   ├── DuplicateEventType           two event classes share one tag
    │   └── MissingExtra (ImportError)   an optional dependency is not installed
    ├── EventNotAccepted                 ``track()`` returned False; raised only by ``strict=True``
    │   └── InvalidEvent (ValueError)    what was tracked cannot be stored as it is
    ├── SinkError                        a batch was not written
    │   ├── TransientError               the same batch may succeed later: retried with jitter
    │   └── OperatorError                somebody must act first: retried slowly, logged loudly
    ├── MigrationError                   a schema step cannot be taken
    └── ReadError                        a question was not answered
        ├── InvalidQuery (ValueError)    a parameter is wrong: change the question
        ├── QueryTimeout                 the answer took longer than statement_timeout
        ├── NotMigrated                  the tables or views are not there: run analytics-migrate
        └── NoConnection                 the database is away, or does not let the reader in

No message holds a password, a token or the content of an event.
"""

from __future__ import annotations


class AnalyticsError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(AnalyticsError, ValueError):
    """A setting, a URL or a declaration is wrong; the message says which and what is expected."""


class DuplicateEventType(ConfigError):
    """Two event classes claim one tag, so their rows could not be told apart."""


class MissingExtra(ConfigError, ImportError):
    """An optional dependency is not installed; the message holds the ``pip install`` that helps."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(f"{module} is not installed: pip install 'asgi-analytics[{extra}]'")


class EventNotAccepted(AnalyticsError):
    """``track()`` dropped an event; ``reason`` is a key of ``stats().dropped``."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"event dropped ({reason}): {detail}")
        self.reason = reason
        self.detail = detail


class InvalidEvent(EventNotAccepted, ValueError):
    """The object is no event, or holds a value that JSON or its declared type refuses."""

    def __init__(self, detail: str) -> None:
        super().__init__("invalid", detail)


class SinkError(AnalyticsError):
    """A batch was not written, and none of it was stored."""


class TransientError(SinkError):
    """The sink is away or busy; the worker sends the same batch again, with jitter, until it is stored.

    ``retry_after``: seconds for which the sink asked to be left alone, where it said so. ``fewer``: the write took too
    long; half of the batch may get through where all of it would never.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, fewer: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.fewer = fewer


class OperatorError(SinkError):
    """The sink refuses everything until somebody acts: a missing table, missing rights, a wrong password."""


class MigrationError(AnalyticsError):
    """A schema step cannot be taken; the message names the file or the object and what to do."""


class ReadError(AnalyticsError):
    """A question was not answered; the message holds neither SQL nor a value of a row."""


class InvalidQuery(ReadError, ValueError):
    """A parameter cannot be answered; ``field`` is its name, ``expected`` says what it may be."""

    def __init__(self, field: str, expected: str) -> None:
        super().__init__(f"{field}: {expected}")
        self.field = field
        self.expected = expected


class QueryTimeout(ReadError):
    """The answer took longer than ``statement_timeout``; the server has stopped working on it."""


class NotMigrated(ReadError):
    """A table, view or function is missing; the message names the command that makes it."""


class NoConnection(ReadError):
    """The database cannot be reached, or does not let the reader in."""
