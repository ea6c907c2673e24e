"""Events without a class: `events.track`, `events.page`, `events.identify`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

import msgspec
import pytest

from asgi_analytics import AnalyticsMiddleware, events
from asgi_analytics.errors import ConfigError, EventNotAccepted
from asgi_analytics.events import USER_NAMESPACE, Event, NamedEvent
from asgi_analytics.events.base import event_types, known_categories
from asgi_analytics.testing import CapturedEvents, capture_events
from tests.instrumentation.asgi_app import Receive, Scope, Send, body, get, start


def stored(event: Event, **settings: Any) -> Any:
    with capture_events(service="shop", strict=True, **settings) as captured:
        assert captured.client.track(event)
    [one] = captured.events
    return one


def test_a_name_is_the_type_and_its_properties_the_data() -> None:
    event = stored(events.track("cart_filled", items=3, tags=["a", "b"], total=1.5, coupon=None))
    assert (event.event_type, event.service) == ("cart_filled", "shop")
    assert event.data == {"items": 3, "tags": ["a", "b"], "total": 1.5, "coupon": None}
    assert (event.user_id, event.session_id) == (None, None)


def test_user_and_session_go_to_the_envelope() -> None:
    event = stored(events.track("cart_filled", user_id="ada", session_id="s-1", items=3))
    assert (event.user_id, event.session_id) == (uuid5(USER_NAMESPACE, "ada"), "s-1")
    assert event.context["user_key"] == "ada"
    assert event.data == {"items": 3}


@pytest.mark.parametrize("name", ["Cart", "cart x", "cart-x", "_cart", "cart_", "cart__x", "", "9_lives", "ä"])
def test_a_name_is_in_snake_case(name: str) -> None:
    with pytest.raises(ConfigError, match="cart_filled"):
        events.track(name)


@pytest.mark.parametrize("name", [None, 7, "a" * 101, b"cart_filled", "cart..filled", ".cart", "cart."])
def test_what_is_no_name_is_refused(name: Any) -> None:
    with pytest.raises(ConfigError):
        events.track(name)


def test_a_dotted_name_is_taken_for_a_tag() -> None:
    assert stored(events.track("project.created", name="x")).event_type == "project_created"
    assert stored(events.track("shop.cart.filled")).event_type == "shop_cart_filled"


def test_what_is_personal_in_a_class_is_hidden_without_it_too() -> None:
    assert stored(events.track("user_registered", email="ada@example.org")).data == {"email": "***"}
    kept = stored(events.track("user.registered", email="ada@example.org"), keep_personal_data=True)
    assert kept.data == {"email": "ada@example.org"}


def test_a_page_is_stored_with_where_its_view_came_from_and_nothing_else_of_its_query() -> None:
    event = stored(
        events.page(
            "https://shop.example/plans/7?utm_source=News&utm_medium=email&token=secret#top",
            referrer="https://mail.google.com/mail/u/0?x=secret",
            title="Plans",
            variant="b",
        )
    )
    assert event.event_type == "page_view"
    assert event.data == {
        "page": "/plans/7",
        "url": "https://shop.example/plans/7",
        "title": "Plans",
        "referrer": "mail.google.com",
        "channel": "email",
        "utm_source": "news",
        "utm_medium": "email",
        "variant": "b",
    }


def test_a_page_may_name_its_route() -> None:
    event = stored(events.page("/plans/7", page="/plans/{plan}", user_id=7))
    assert event.data == {"page": "/plans/{plan}", "url": "/plans/7", "channel": "direct"}
    assert event.context["user_key"] == "7"


def test_a_property_may_be_called_as_a_parameter_is() -> None:
    assert stored(events.track("project_renamed", name="x", url="/y")).data == {"name": "x", "url": "/y"}
    assert stored(events.page(url="/plans")).data["page"] == "/plans"
    assert stored(events.identify(user_id=7, name="Ada")).data == {"name": "Ada"}


def test_identify_tells_traits_of_a_user() -> None:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    event = stored(events.identify("ada", plan="pro", registered_at=moment, team=UUID(int=7)))
    assert event.event_type == "user_identified"
    assert event.user_id == uuid5(USER_NAMESPACE, "ada")
    assert event.data == {"plan": "pro", "registered_at": "2026-01-02T00:00:00Z", "team": str(UUID(int=7))}


@pytest.mark.parametrize(
    "properties",
    [{"at": datetime(2026, 1, 2)}, {"x": object()}, {"x": 10**5000}, {"user_id": 1.5}, {"user_id": object()}],
)
def test_what_cannot_be_stored_is_dropped_as_invalid(properties: dict[str, Any]) -> None:
    with capture_events() as captured:
        assert not captured.client.track(events.track("cart_filled", **properties))
        assert captured.client.stats().dropped["invalid"] == 1
    with capture_events(strict=True) as captured, pytest.raises(EventNotAccepted, match="cart_filled"):
        captured.client.track(events.track("cart_filled", **properties))


def test_text_is_cleaned() -> None:
    event = stored(events.track("cart_filled", note="a\x00b\ud800", session_id="s\x00", **{"k\x00": {"\ud800": 1}}))
    assert event.data == {"note": "a\ufffdb\ufffd", "k\ufffd": {"\ufffd": 1}}
    assert event.session_id == "s\ufffd"


def test_before_track_sees_and_changes_them() -> None:
    def redact(event: Event) -> Event | None:
        assert isinstance(event, NamedEvent)
        return msgspec.structs.replace(event, properties={**event.properties, "secret": None})

    assert stored(events.track("cart_filled", secret="x"), before_track=redact).data == {"secret": None}


def test_what_before_track_makes_of_a_name_is_checked() -> None:
    with capture_events(before_track=lambda event: NamedEvent(event_type="No Name")) as captured:
        assert not captured.client.track(events.track("cart_filled"))


def test_they_belong_to_no_class_of_the_catalogue() -> None:
    assert NamedEvent not in event_types().values()
    assert "page_view" not in known_categories()  # so it is an interaction, as all types that say nothing


async def test_the_request_is_in_their_context(analytics: CapturedEvents) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        analytics.client.track(events.track("cart_filled"))
        await send(start())
        await send(body())

    await get(AnalyticsMiddleware(app, client=analytics.client, user_id=lambda scope: "ada"))
    [event], [request] = analytics.of("cart_filled"), analytics.of("api_request")
    assert event.user_id == request.user_id == uuid5(USER_NAMESPACE, "ada")
    assert event.context == request.context
