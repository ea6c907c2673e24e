"""Integrations, logins and cocoons by day. Rates are fractions from 0 to 1."""

from __future__ import annotations

from datetime import datetime

import msgspec

from asgi_analytics.reading.question import Text, question
from asgi_analytics.reading.ranges import DAY, Moment, Range
from asgi_analytics.reading.source import Answer, Source
from asgi_analytics.reading.statements import Statements

SQL = Statements("integrations")


class IntegrationHealth(msgspec.Struct, frozen=True):
    """The integrations with one provider on one local day."""

    day: datetime
    provider: str | None
    connections: int
    disconnections: int
    uses: int
    errors: int
    unique_users: int
    error_rate: float | None
    """errors / uses."""


class AuthStats(msgspec.Struct, frozen=True):
    """The logins of one local day."""

    day: datetime
    login_attempts: int
    successful_logins: int
    failed_logins: int
    code_verifications: int
    token_refreshes: int
    unique_users_authenticated: int
    login_success_rate: float | None
    """successful_logins / login_attempts."""


class CocoonActivity(msgspec.Struct, frozen=True):
    """The cocoons of one local day."""

    day: datetime
    registrations: int
    connections: int
    disconnections: int
    claims: int
    avg_session_duration_seconds: float | None
    unique_cocoons: int


@question("/integrations/daily", bare=True)
async def get_integration_health(
    source: Source,
    *,
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
) -> list[IntegrationHealth]:
    """Count connections, disconnections, uses and errors of integrations by local day and provider; oldest first."""
    return await _daily(source, IntegrationHealth, "integrations", source.range(start, end, timezone), service)


@question("/auth/daily", bare=True)
async def get_auth_stats(
    source: Source,
    *,
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
) -> list[AuthStats]:
    """Count logins, code verifications and token refreshes by local day; oldest day first."""
    return await _daily(source, AuthStats, "auth", source.range(start, end, timezone), service)


@question("/cocoons/daily", bare=True)
async def get_cocoon_activity(
    source: Source,
    *,
    start: Moment | None = None,
    end: Moment | None = None,
    timezone: str | None = None,
    service: Text | None = None,
) -> list[CocoonActivity]:
    """Count registrations, connections, disconnections and claims of cocoons by local day; oldest day first."""
    return await _daily(source, CocoonActivity, "cocoons", source.range(start, end, timezone), service)


async def _daily(source: Source, answer: type[Answer], block: str, asked: Range, service: str | None) -> list[Answer]:
    days = asked.buckets("day")
    split = days.split(DAY, known=service is None)
    async with source.snapshot() as snapshot:
        await snapshot.require_parts(split)
        return await snapshot.rows(
            answer, SQL[block], *split.bounds, days.edges, service, snapshot.limit(), buckets=days
        )
