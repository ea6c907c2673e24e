"""The life of a project."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from asgi_analytics.events.base import Category, Event, UserId

__all__ = ["ProjectCreated", "ProjectDeleted", "ProjectUpdated", "ProjectViewed"]


class ProjectCreated(Event):
    """A project was made."""

    category: ClassVar[Category] = "transaction"

    project_id: UUID
    user_id: UserId
    name: str


class ProjectUpdated(Event):
    """A project was changed."""

    category: ClassVar[Category] = "transaction"

    project_id: UUID
    user_id: UserId


class ProjectDeleted(Event):
    """A project was removed."""

    category: ClassVar[Category] = "transaction"

    project_id: UUID
    user_id: UserId


class ProjectViewed(Event):
    """Somebody looked at a project."""

    category: ClassVar[Category] = "interaction"

    project_id: UUID
    user_id: UserId | None = None
