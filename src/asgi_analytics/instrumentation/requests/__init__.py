"""One request of an ASGI application, from its scope to its record."""
