"""Accounts, the sessions in them, and how they are secured."""

from __future__ import annotations

from typing import ClassVar

from asgi_analytics.events.base import Category, Event, Personal, UserId

__all__ = [
    "MfaDisabled",
    "MfaEnabled",
    "PasswordChanged",
    "SessionEnded",
    "SessionStarted",
    "UserLoggedIn",
    "UserLoggedOut",
    "UserRegistered",
]


class UserRegistered(Event):
    """Somebody made an account. ``email`` is stored as its keyed hash."""

    category: ClassVar[Category] = "activity"

    user_id: UserId
    provider: str | None = None
    email: Personal[str] | None = None


class UserLoggedIn(Event):
    """Somebody logged in."""

    category: ClassVar[Category] = "activity"

    user_id: UserId
    provider: str
    mfa_used: bool


class UserLoggedOut(Event):
    """Somebody logged out."""

    category: ClassVar[Category] = "activity"

    user_id: UserId


class SessionStarted(Event):
    """The application began a session."""

    category: ClassVar[Category] = "activity"

    user_id: UserId | None = None


class SessionEnded(Event):
    """The application ended a session. ``duration_ms`` is in milliseconds."""

    category: ClassVar[Category] = "activity"

    user_id: UserId | None = None
    duration_ms: float | None = None


class PasswordChanged(Event):
    """Somebody changed their password."""

    category: ClassVar[Category] = "activity"

    user_id: UserId


class MfaEnabled(Event):
    """Somebody added a second factor."""

    category: ClassVar[Category] = "activity"

    user_id: UserId
    method: str | None = None


class MfaDisabled(Event):
    """Somebody removed their second factor."""

    category: ClassVar[Category] = "activity"

    user_id: UserId
    method: str | None = None
