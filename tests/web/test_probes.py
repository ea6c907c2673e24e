"""The probes of a service."""

from __future__ import annotations

import pytest

from asgi_analytics.web.probes import Probes


async def away() -> None:
    raise ConnectionError


async def test_each_service_of_a_process_says_why_it_is_not_ready(caplog: pytest.LogCaptureFixture) -> None:
    """Also one that is made where another was a moment before: the log must not take it for that one."""
    for _ in range(20):
        probes = Probes(away, not_ready="")
        assert not await probes.is_ready()
        assert not await probes.is_ready()
        del probes  # its place in memory is that of the next one
    assert len(caplog.messages) == 20
