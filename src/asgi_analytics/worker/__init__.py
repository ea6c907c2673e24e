"""The worker, on a loop of the application's or in a thread of its own."""

from asgi_analytics.worker.worker import AnalyticsWorker as AnalyticsWorker
