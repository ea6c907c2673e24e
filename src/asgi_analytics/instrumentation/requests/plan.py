"""What one middleware wants to know of each request, and whom it asks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from asgi_analytics.encoding.request_record import RequestLines
from asgi_analytics.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping
    from uuid import UUID

    from asgi_analytics.client import AnalyticsClient
    from asgi_analytics.instrumentation.requests.framework import Framework

    Scope = MutableMapping[str, Any]


class CaptureSettings:
    """A middleware's options, and what follows from them and from the frameworks that the application uses.

    Each request looks things up here, some of them several times: so all that can be known before is known before.
    """

    __slots__ = (
        "alone",
        "asks_little",
        "capture_errors",
        "client",
        "endpoint",
        "excluded_paths",
        "excluded_prefixes",
        "frameworks",
        "frameworks_know_users",
        "has_excluded",
        "is_warm",
        "knows_endpoints",
        "knows_users",
        "lines",
        "only_framework",
        "queue",
        "session_id",
        "unrouted",
        "user_id",
        "writer",
    )

    def __init__(
        self,
        client: AnalyticsClient,
        *,
        exclude: Iterable[str],
        user_id: Callable[[Scope], UUID | str | int | None] | None,
        session_id: Callable[[Scope], str | None] | None,
        endpoint: Callable[[Scope], str | None] | None,
        capture_errors: bool,
    ) -> None:
        self.client = client
        self.excluded_paths, self.excluded_prefixes = _read_exclude(exclude)
        self.has_excluded = bool(self.excluded_paths or self.excluded_prefixes)
        self.queue = client._queue
        self.user_id = user_id
        self.session_id = session_id
        self.endpoint = endpoint
        self.capture_errors = capture_errors
        # What makes the lines of this middleware's records, and the number that its records begin with.
        self.lines = client.lines(RequestLines)
        self.writer = -1 if self.lines is None else self.lines.writer
        # Whether the first request has come: its application is complete, and known.
        self.is_warm = False
        self.know(())

    def know(self, frameworks: tuple[Framework, ...]) -> None:
        """Take note of the frameworks that the application uses."""
        self.frameworks = frameworks
        self.knows_endpoints = bool(frameworks) or self.endpoint is not None
        # Most applications have one framework, and nothing to ask but this.
        self.only_framework = frameworks[0] if len(frameworks) == 1 and self.endpoint is None else None
        self.alone = {} if self.only_framework is None else self.only_framework.alone
        # What is known of a route that is not among them: all there is to know, where there is no framework.
        self.unrouted = None if self.knows_endpoints else (None, None)
        self.frameworks_know_users = any(framework.knows_users for framework in frameworks)
        self.knows_users = self.user_id is not None or self.frameworks_know_users
        # Whether nothing has to be asked at the end of an ordinary request but its route and `user_id`.
        self.asks_little = self.session_id is None and self.lines is not None and not self.frameworks_know_users

    def excludes(self, scope: Scope) -> bool:
        """Tell whether a request's path, without ``root_path``, is among the excluded ones."""
        path: str = scope["path"]
        root_path: str = scope.get("root_path") or ""
        if root_path and path.startswith(root_path) and path[len(root_path) :][:1] in ("", "/"):
            path = path[len(root_path) :]
        return path in self.excluded_paths or path.startswith(self.excluded_prefixes)


def _read_exclude(exclude: Iterable[str]) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return the exact paths and the prefixes, each with its slash, of the option ``exclude``."""
    if not isinstance(exclude, Iterable):
        raise ConfigError(f"exclude is {exclude!r}: use a list, exclude=['/health']")
    if isinstance(exclude, str):
        raise ConfigError(f"exclude is the str {exclude!r}: use a list, exclude=[{exclude!r}]")
    exact, prefixes = [], []
    for path in exclude:
        if not isinstance(path, str) or not path.startswith("/") or "*" in path.removesuffix("/*"):
            raise ConfigError(f"exclude holds {path!r}: use paths, '/health', or 'prefix/*', '/static/*'")
        if path.endswith("/*"):
            prefixes.append(path[:-1])
        else:
            exact.append(path)
    return frozenset(exact), tuple(prefixes)
