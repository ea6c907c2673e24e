"""Analytics for ASGI applications in the database they already run."""

from asgi_analytics import errors, events
from asgi_analytics._version import __version__ as __version__
from asgi_analytics.client import AnalyticsClient
from asgi_analytics.context import set_session, set_user
from asgi_analytics.events import EnrichedEvent, Event
from asgi_analytics.frameworks import known_frameworks
from asgi_analytics.instrumentation.asgi import AnalyticsMiddleware
from asgi_analytics.instrumentation.asyncpg import instrument_asyncpg
from asgi_analytics.instrumentation.decorators import capture_errors, capture_query, capture_request
from asgi_analytics.instrumentation.page_views import PageViews
from asgi_analytics.sinks.base import Sink
from asgi_analytics.sinks.memory import MemorySink
from asgi_analytics.sinks.timescale import TimescaleSink
from asgi_analytics.worker.thread import ThreadHost
from asgi_analytics.worker.worker import AnalyticsWorker

__all__ = [
    "AnalyticsClient",
    "AnalyticsMiddleware",
    "AnalyticsWorker",
    "EnrichedEvent",
    "Event",
    "MemorySink",
    "PageViews",
    "Sink",
    "TimescaleSink",
    "capture_errors",
    "capture_query",
    "capture_request",
    "errors",
    "events",
    "instrument_asyncpg",
    "set_session",
    "set_user",
]

# The composition root: lower floors do not import what is set here, so that they can be read and tested without it.
AnalyticsClient.host_for_url = ThreadHost
AnalyticsMiddleware.known_frameworks = known_frameworks()
