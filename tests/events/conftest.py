"""What a test says about its user or session ends with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from asgi_analytics._context import current


@pytest.fixture(autouse=True)
def outside_a_request() -> Iterator[None]:
    token = current.set(None)
    yield
    current.reset(token)
