"""From a proposal over its milestones to the payment. ``amount`` is in units of ``currency``, an ISO 4217 code."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from asgi_analytics.events.base import Category, Event, UserId

__all__ = [
    "MilestoneApproved",
    "MilestoneCompleted",
    "MilestoneCreated",
    "PaymentCompleted",
    "PaymentFailed",
    "PaymentInitiated",
    "ProposalAccepted",
    "ProposalRejected",
    "ProposalSubmitted",
]


class ProposalSubmitted(Event):
    """Somebody offered to do a project."""

    category: ClassVar[Category] = "transaction"

    proposal_id: UUID
    project_id: UUID | None = None
    user_id: UserId
    amount: float | None = None
    currency: str | None = None


class ProposalAccepted(Event):
    """A proposal was taken."""

    category: ClassVar[Category] = "transaction"

    proposal_id: UUID
    project_id: UUID | None = None
    user_id: UserId
    amount: float | None = None
    currency: str | None = None


class ProposalRejected(Event):
    """A proposal was turned down."""

    category: ClassVar[Category] = "transaction"

    proposal_id: UUID
    project_id: UUID | None = None
    user_id: UserId
    reason: str | None = None


class MilestoneCreated(Event):
    """A milestone was agreed on."""

    category: ClassVar[Category] = "transaction"

    milestone_id: UUID
    project_id: UUID | None = None
    user_id: UserId
    amount: float | None = None
    currency: str | None = None


class MilestoneApproved(Event):
    """What a milestone asks for was approved."""

    category: ClassVar[Category] = "transaction"

    milestone_id: UUID
    project_id: UUID | None = None
    user_id: UserId
    amount: float | None = None
    currency: str | None = None


class MilestoneCompleted(Event):
    """A milestone was reached."""

    category: ClassVar[Category] = "transaction"

    milestone_id: UUID
    project_id: UUID | None = None
    user_id: UserId
    amount: float | None = None
    currency: str | None = None


class PaymentInitiated(Event):
    """A payment was begun."""

    category: ClassVar[Category] = "transaction"

    payment_id: UUID
    user_id: UserId
    amount: float
    currency: str | None = None
    milestone_id: UUID | None = None


class PaymentCompleted(Event):
    """A payment went through."""

    category: ClassVar[Category] = "transaction"

    payment_id: UUID
    user_id: UserId
    amount: float
    currency: str | None = None
    milestone_id: UUID | None = None


class PaymentFailed(Event):
    """A payment did not go through."""

    category: ClassVar[Category] = "transaction"

    payment_id: UUID
    user_id: UserId
    amount: float
    currency: str | None = None
    milestone_id: UUID | None = None
    error: str | None = None
