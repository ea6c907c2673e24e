"""What people say to each other, and what draws their attention."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from asgi_analytics.events.base import Category, Event, UserId

__all__ = ["MessageSent", "NotificationClicked"]


class MessageSent(Event):
    """Somebody wrote to somebody."""

    category: ClassVar[Category] = "interaction"

    message_id: UUID
    user_id: UserId
    conversation_id: UUID | None = None


class NotificationClicked(Event):
    """Somebody followed a notification."""

    category: ClassVar[Category] = "interaction"

    notification_id: UUID
    user_id: UserId
    kind: str | None = None
