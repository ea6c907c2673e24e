"""What happens when people log in."""

from __future__ import annotations

from typing import ClassVar

from asgi_analytics.events.base import Category, Event, Personal, UserId

__all__ = [
    "AuthCodeVerified",
    "AuthLoginAttempt",
    "AuthSessionValidated",
    "AuthTokenRefresh",
    "OAuthFlowCompleted",
    "OAuthFlowStarted",
]


class AuthLoginAttempt(Event):
    """Somebody tried to log in. ``email`` is stored as its keyed hash."""

    category: ClassVar[Category] = "activity"

    user_id: UserId | None = None
    email: Personal[str]
    success: bool
    error: str | None = None


class AuthCodeVerified(Event):
    """A one-time code was checked."""

    category: ClassVar[Category] = "activity"

    user_id: UserId
    success: bool
    error: str | None = None


class AuthTokenRefresh(Event):
    """A token was exchanged for a fresh one."""

    category: ClassVar[Category] = "activity"

    user_id: UserId
    success: bool
    error: str | None = None


class AuthSessionValidated(Event):
    """A session was checked and found valid or not."""

    category: ClassVar[Category] = "activity"

    user_id: UserId
    valid: bool


class OAuthFlowStarted(Event):
    """A user was sent to an OAuth provider. ``state`` is a secret and stored as its keyed hash."""

    category: ClassVar[Category] = "activity"

    user_id: UserId
    provider: str
    state: Personal[str]


class OAuthFlowCompleted(Event):
    """A user came back from an OAuth provider."""

    category: ClassVar[Category] = "activity"

    user_id: UserId
    provider: str
    success: bool
    error: str | None = None
