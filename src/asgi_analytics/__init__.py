"""Analytics for ASGI applications in the database they already run."""

__version__ = "0.1.0"
