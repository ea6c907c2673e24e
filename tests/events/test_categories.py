"""Every event type has a category, which decides how long its rows are kept."""

from __future__ import annotations

from typing import ClassVar

from asgi_analytics import Event
from asgi_analytics.events.base import Category, event_types, known_categories
from asgi_analytics.reading.categories import category_of, types_of

PROMISED = {
    "system": (
        "api_request database_query application_error webhook_received webhook_processed task_created task_started"
        " task_completed task_failed task_cancelled cocoon_registered cocoon_connected cocoon_disconnected"
        " cocoon_claimed cocoon_setup_token_created cocoon_setup_token_used"
    ),
    "activity": (
        "auth_login_attempt auth_code_verified auth_token_refresh auth_session_validated oauth_flow_started"
        " oauth_flow_completed integration_connected integration_disconnected integration_used integration_error"
        " user_registered user_logged_in user_logged_out session_started session_ended password_changed mfa_enabled"
        " mfa_disabled"
    ),
    "transaction": (
        "project_created project_updated project_deleted mission_created mission_completed spec_created"
        " forge_item_created proposal_submitted proposal_accepted proposal_rejected milestone_created"
        " milestone_approved milestone_completed payment_initiated payment_completed payment_failed"
    ),
    "interaction": "search_performed filter_applied project_viewed profile_viewed message_sent notification_clicked",
    "content": ("review_posted review_updated portfolio_created portfolio_updated profile_updated github_synced"),
}


class OrderPaid(Event):
    category: ClassVar[Category] = "transaction"

    amount: float


class ProductSeen(Event):
    product_id: int


def test_the_catalogue_has_the_promised_categories() -> None:
    known = known_categories()
    for category, types in PROMISED.items():
        assert {known[event_type] for event_type in types.split()} == {category}


def test_a_class_of_your_own_is_interaction_unless_it_says_otherwise() -> None:
    assert category_of("order_paid") == "transaction"
    assert category_of("product_seen") == "interaction"
    assert category_of("never_heard_of") == "interaction"
    assert "category" not in OrderPaid.__struct_fields__


def test_an_event_with_a_field_of_that_name_is_interaction() -> None:
    class ShelfFilled(Event):
        category: str  # type: ignore[misc, assignment]  # what the shelf is of

    assert ShelfFilled(category="toys").category == "toys"
    assert category_of("shelf_filled") == "interaction"
    assert event_types()["shelf_filled"] is ShelfFilled


def test_categories_become_types_to_look_for_or_to_leave_out() -> None:
    assert types_of(None, None) == (None, None)
    assert types_of(None, ["a"]) == (["a"], None)
    wanted, unwanted = types_of(["transaction"], None)
    assert unwanted is None
    assert wanted is not None
    assert {"order_paid", "project_created"} <= set(wanted)
    wanted, unwanted = types_of(["interaction", "transaction"], None)
    assert wanted is None
    assert unwanted is not None
    assert "api_request" in unwanted
    assert not {"product_seen", "order_paid"} & set(unwanted)
    assert types_of(["interaction"], ["api_request", "unheard"]) == (["unheard"], None)
    assert types_of(["content"], ["order_paid"]) == ([], None)
