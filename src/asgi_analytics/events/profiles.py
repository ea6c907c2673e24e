"""What people show of themselves and say of others."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from asgi_analytics.events.base import Category, Event, UserId

__all__ = [
    "GithubSynced",
    "PortfolioCreated",
    "PortfolioUpdated",
    "ProfileUpdated",
    "ProfileViewed",
    "ReviewPosted",
    "ReviewUpdated",
]


class ReviewPosted(Event):
    """Somebody reviewed somebody or something."""

    category: ClassVar[Category] = "content"

    review_id: UUID
    user_id: UserId
    subject_id: UUID | None = None
    rating: float | None = None


class ReviewUpdated(Event):
    """A review was changed."""

    category: ClassVar[Category] = "content"

    review_id: UUID
    user_id: UserId
    rating: float | None = None


class PortfolioCreated(Event):
    """Somebody made a portfolio."""

    category: ClassVar[Category] = "content"

    portfolio_id: UUID
    user_id: UserId


class PortfolioUpdated(Event):
    """A portfolio was changed."""

    category: ClassVar[Category] = "content"

    portfolio_id: UUID
    user_id: UserId


class ProfileUpdated(Event):
    """Somebody changed their profile."""

    category: ClassVar[Category] = "content"

    profile_id: UUID | None = None
    user_id: UserId


class ProfileViewed(Event):
    """Somebody looked at a profile."""

    category: ClassVar[Category] = "interaction"

    profile_id: UUID
    user_id: UserId | None = None


class GithubSynced(Event):
    """What a person has on GitHub was read. ``duration_ms`` is in milliseconds."""

    category: ClassVar[Category] = "content"

    user_id: UserId
    success: bool
    repository_count: int | None = None
    duration_ms: float | None = None
