"""Integrations with other services, and the webhooks they send. Durations are milliseconds."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from asgi_analytics.events.base import Category, Event, UserId

__all__ = [
    "IntegrationConnected",
    "IntegrationDisconnected",
    "IntegrationError",
    "IntegrationUsed",
    "WebhookProcessed",
    "WebhookReceived",
]


class IntegrationConnected(Event):
    """A user connected a provider."""

    category: ClassVar[Category] = "activity"

    integration_id: UUID
    user_id: UserId
    provider: str
    project_id: UUID | None = None


class IntegrationDisconnected(Event):
    """A provider was disconnected."""

    category: ClassVar[Category] = "activity"

    integration_id: UUID
    user_id: UserId
    provider: str
    reason: str | None = None


class IntegrationUsed(Event):
    """An integration did something for a user."""

    category: ClassVar[Category] = "activity"

    integration_id: UUID
    user_id: UserId
    provider: str
    action: str


class IntegrationError(Event):
    """An integration failed."""

    category: ClassVar[Category] = "activity"

    integration_id: UUID
    user_id: UserId
    provider: str
    error: str


class WebhookReceived(Event):
    """A provider delivered a webhook."""

    category: ClassVar[Category] = "system"

    integration_id: UUID | None = None
    provider: str
    event_type: str
    delivery_id: str


class WebhookProcessed(Event):
    """A delivered webhook was worked off."""

    category: ClassVar[Category] = "system"

    integration_id: UUID | None = None
    provider: str
    event_type: str
    delivery_id: str
    success: bool
    duration_ms: float
    error: str | None = None
