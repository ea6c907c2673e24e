"""Cocoons: the machines that users register and claim. ``duration_seconds`` is seconds."""

from __future__ import annotations

from uuid import UUID

from asgi_analytics.events.base import Event, UserId

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

    cocoon_id: UUID
    user_id: UserId
    device_name: str | None = None


class CocoonConnected(Event):
    """A cocoon came online."""

    cocoon_id: UUID
    user_id: UserId | None = None


class CocoonDisconnected(Event):
    """A cocoon went offline after a session of ``duration_seconds``."""

    cocoon_id: UUID
    user_id: UserId | None = None
    duration_seconds: float


class CocoonClaimed(Event):
    """A user took a cocoon as their own."""

    cocoon_id: UUID
    user_id: UserId
    via_setup_token: bool


class CocoonSetupTokenCreated(Event):
    """A token to set up a cocoon was made."""

    token_id: UUID
    user_id: UserId
    cocoon_name: str | None = None


class CocoonSetupTokenUsed(Event):
    """A cocoon was set up by a token."""

    token_id: UUID
    cocoon_id: UUID
    user_id: UserId
