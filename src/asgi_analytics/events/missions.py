"""Missions, their specs, and what they make in the forge."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from asgi_analytics.events.base import Category, Event, UserId

__all__ = ["ForgeItemCreated", "MissionCompleted", "MissionCreated", "SpecCreated"]


class MissionCreated(Event):
    """A mission was made."""

    category: ClassVar[Category] = "transaction"

    mission_id: UUID
    user_id: UserId
    project_id: UUID | None = None
    title: str | None = None


class MissionCompleted(Event):
    """A mission reached its end. ``duration_ms`` is in milliseconds."""

    category: ClassVar[Category] = "transaction"

    mission_id: UUID
    user_id: UserId
    success: bool
    duration_ms: float | None = None


class SpecCreated(Event):
    """A spec was written."""

    category: ClassVar[Category] = "transaction"

    spec_id: UUID
    user_id: UserId
    mission_id: UUID | None = None
    project_id: UUID | None = None


class ForgeItemCreated(Event):
    """An item was made in the forge."""

    category: ClassVar[Category] = "transaction"

    forge_item_id: UUID
    user_id: UserId
    kind: str | None = None
    mission_id: UUID | None = None
