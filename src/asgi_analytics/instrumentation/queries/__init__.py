"""Queries, whatever the driver: what is kept of a statement, and the recorder that a driver calls."""
