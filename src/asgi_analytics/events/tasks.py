"""The life of a task. Durations are milliseconds."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from asgi_analytics.events.base import Category, Event, UserId

__all__ = ["TaskCancelled", "TaskCompleted", "TaskCreated", "TaskFailed", "TaskStarted"]


class TaskCreated(Event):
    """A task was asked for."""

    category: ClassVar[Category] = "system"

    task_id: UUID
    user_id: UserId
    project_id: UUID | None = None
    cocoon_id: UUID | None = None
    command: str


class TaskStarted(Event):
    """A task began to run."""

    category: ClassVar[Category] = "system"

    task_id: UUID
    user_id: UserId
    cocoon_id: UUID | None = None


class TaskCompleted(Event):
    """A task ran to its end."""

    category: ClassVar[Category] = "system"

    task_id: UUID
    user_id: UserId
    duration_ms: float
    exit_code: int


class TaskFailed(Event):
    """A task ended in an error."""

    category: ClassVar[Category] = "system"

    task_id: UUID
    user_id: UserId
    duration_ms: float | None = None
    exit_code: int | None = None
    error: str


class TaskCancelled(Event):
    """A task was stopped before its end."""

    category: ClassVar[Category] = "system"

    task_id: UUID
    user_id: UserId
    duration_ms: float | None = None
