"""Cocoons: the machines that users register and claim. ``duration_seconds`` is seconds."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from asgi_analytics.events.base import Category, Event, UserId

__all__ = [
    "CocoonClaimed",
    "CocoonConnected",
    "CocoonDisconnected",
    "CocoonRegistered",
    "CocoonSetupTokenCreated",
    "CocoonSetupTokenUsed",
]


class CocoonRegistered(Event):
    """A cocoon was made known."""

    category: ClassVar[Category] = "system"

    cocoon_id: UUID
    user_id: UserId
    device_name: str | None = None


class CocoonConnected(Event):
    """A cocoon came online."""

    category: ClassVar[Category] = "system"

    cocoon_id: UUID
    user_id: UserId | None = None


class CocoonDisconnected(Event):
    """A cocoon went offline after a session of ``duration_seconds``."""

    category: ClassVar[Category] = "system"

    cocoon_id: UUID
    user_id: UserId | None = None
    duration_seconds: float


class CocoonClaimed(Event):
    """A user took a cocoon as their own."""

    category: ClassVar[Category] = "system"

    cocoon_id: UUID
    user_id: UserId
    via_setup_token: bool


class CocoonSetupTokenCreated(Event):
    """A token to set up a cocoon was made."""

    category: ClassVar[Category] = "system"

    token_id: UUID
    user_id: UserId
    cocoon_name: str | None = None


class CocoonSetupTokenUsed(Event):
    """A cocoon was set up by a token."""

    category: ClassVar[Category] = "system"

    token_id: UUID
    cocoon_id: UUID
    user_id: UserId
