"""What one middleware captures from each request, decided once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from asgi_analytics.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from asgi_analytics.client import AnalyticsClient
    from asgi_analytics.instrumentation.page_views import PageViews
    from asgi_analytics.instrumentation.requests.framework import Framework
    from asgi_analytics.instrumentation.types import Scope


class CapturePlan:
    """A middleware's options, and what follows from them and from the frameworks that the application uses."""

    def __init__(
        self,
        client: AnalyticsClient,
        *,
        exclude: Iterable[str],
        user_id: Callable[[Scope], UUID | str | int | None] | None,
        session_id: Callable[[Scope], str | None] | None,
        endpoint: Callable[[Scope], str | None] | None,
        capture_errors: bool,
        page_views: PageViews | None = None,
    ) -> None:
        self.client = client
        self.intake = client.intake
        self.excluded_paths, self.excluded_prefixes = _read_exclude(exclude)
        self.has_excluded = bool(self.excluded_paths or self.excluded_prefixes)
        self.user_id = user_id
        self.session_id = session_id
        self.endpoint = endpoint
        self.capture_errors = capture_errors
        self.page_views = page_views
        self.set_frameworks(())

    def set_frameworks(self, frameworks: tuple[Framework, ...]) -> None:
        """Take note of the frameworks that the application uses."""
        self.frameworks = frameworks
        self.frameworks_know_users = any(framework.knows_users for framework in frameworks)
        self.knows_users = self.user_id is not None or self.frameworks_know_users
        self.knows_endpoints = self.endpoint is not None or bool(frameworks)

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
