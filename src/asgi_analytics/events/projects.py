"""The life of a project."""

from __future__ import annotations

from uuid import UUID

from asgi_analytics.events.base import Event, UserId

__all__ = ["ProjectCreated", "ProjectDeleted", "ProjectUpdated"]


class ProjectCreated(Event):
    """A project was made."""

    project_id: UUID
    user_id: UserId
    name: str


class ProjectUpdated(Event):
    """A project was changed."""

    project_id: UUID
    user_id: UserId


class ProjectDeleted(Event):
    """A project was removed."""

    project_id: UUID
    user_id: UserId
