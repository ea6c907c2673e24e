"""The catalogue is the contract's table, word for word."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
import pytest

from asgi_analytics import events
from asgi_analytics.events.base import Event, event_type_of, event_types
from asgi_analytics.testing import capture_events

TABLE = """
| AuthLoginAttempt | user_id?, email, success, error? |
| AuthCodeVerified | user_id, success, error? |
| AuthTokenRefresh | user_id, success, error? |
| AuthSessionValidated | user_id, valid |
| TaskCreated | task_id, user_id, project_id?, cocoon_id?, command |
| TaskStarted | task_id, user_id, cocoon_id? |
| TaskCompleted | task_id, user_id, duration_ms, exit_code |
| TaskFailed | task_id, user_id, duration_ms?, exit_code?, error |
| TaskCancelled | task_id, user_id, duration_ms? |
| IntegrationConnected | integration_id, user_id, provider, project_id? |
| IntegrationDisconnected | integration_id, user_id, provider, reason? |
| IntegrationUsed | integration_id, user_id, provider, action |
| IntegrationError | integration_id, user_id, provider, error |
| OAuthFlowStarted | user_id, provider, state |
| OAuthFlowCompleted | user_id, provider, success, error? |
| WebhookReceived | integration_id?, provider, event_type, delivery_id |
| WebhookProcessed | integration_id?, provider, event_type, delivery_id, success, duration_ms, error? |
| CocoonRegistered | cocoon_id, user_id, device_name? |
| CocoonConnected | cocoon_id, user_id? |
| CocoonDisconnected | cocoon_id, user_id?, duration_seconds |
| CocoonClaimed | cocoon_id, user_id, via_setup_token |
| CocoonSetupTokenCreated | token_id, user_id, cocoon_name? |
| CocoonSetupTokenUsed | token_id, cocoon_id, user_id |
| ProjectCreated | project_id, user_id, name |
| ProjectUpdated, ProjectDeleted | project_id, user_id |
| ApiRequest | method, endpoint?, status_code, duration_ms, ttfb_ms?, response_bytes?, outcome, error_type?, \
close_code?, db_queries?, db_duration_ms?, db_repeats?, user_id? |
| DatabaseQuery | query_type, table?, statement?, fingerprint?, duration_ms, rows_affected?, outcome, error_type?, \
sqlstate?, endpoint? |
| ApplicationError | error_type, error_message, fingerprint, endpoint?, handled, stack, user_id?, context? |
"""

TAGS = {
    "OAuthFlowStarted": "oauth_flow_started",
    "OAuthFlowCompleted": "oauth_flow_completed",
    "TaskCreated": "task_created",
    "ApiRequest": "api_request",
    "CocoonSetupTokenUsed": "cocoon_setup_token_used",
}

ID = UUID("0198c1a2-0000-7000-8000-000000000001")
USER = UUID("0198c1a2-0000-7000-8000-000000000002")
NUMBERS = {"exit_code", "status_code", "response_bytes", "close_code", "db_queries", "db_repeats", "rows_affected"}
DURATIONS = {"duration_ms", "ttfb_ms", "db_duration_ms", "duration_seconds"}
FLAGS = {"success", "valid", "via_setup_token", "handled"}


def catalogue() -> dict[str, list[str]]:
    rows: dict[str, list[str]] = {}
    for line in TABLE.strip().splitlines():
        names, fields = line.strip("| ").split(" | ")
        rows.update(dict.fromkeys(names.split(", "), fields.split(", ")))
    return rows


def value_of(field: str) -> Any:
    if field == "user_id":
        return USER
    if field.endswith("_id") and field != "delivery_id":
        return ID
    if field == "stack":
        return [{"file": "shop.py", "line": 7, "function": "buy"}]
    if field == "context":
        return {"basket": 3}
    if field in NUMBERS:
        return 7
    if field in DURATIONS:
        return 12.5
    return True if field in FLAGS else f"a {field}"


def event_class(name: str) -> type[Event]:
    cls: type[Event] = getattr(events, name)
    return cls


def test_the_catalogue_has_29_events_and_no_others() -> None:
    assert len(catalogue()) == 29
    shipped = {cls.__name__ for cls in event_types().values() if cls.__module__.startswith("asgi_analytics.")}
    assert shipped == set(catalogue())


@pytest.mark.parametrize("name", catalogue())
class TestEachEvent:
    def test_has_the_fields_of_the_contract_in_its_order(self, name: str) -> None:
        fields = msgspec.structs.fields(event_class(name))
        assert [f.name if f.required else f"{f.name}?" for f in fields] == catalogue()[name]

    def test_defaults_to_none_where_it_is_optional(self, name: str) -> None:
        for field in msgspec.structs.fields(event_class(name)):
            assert field.required or field.default is None

    def test_has_its_name_in_snake_case_for_a_tag(self, name: str) -> None:
        expected = TAGS.get(name) or "".join(f"_{c.lower()}" if c.isupper() else c for c in name).strip("_")
        assert event_type_of(event_class(name)) == expected

    def test_is_frozen(self, name: str) -> None:
        fields = [field.rstrip("?") for field in catalogue()[name]]
        event = event_class(name)(**{field: value_of(field) for field in fields})
        with pytest.raises(AttributeError):
            setattr(event, fields[0], "another")

    def test_demands_what_is_not_optional(self, name: str) -> None:
        required = [field for field in catalogue()[name] if not field.endswith("?")]
        for missing in required:
            with pytest.raises(TypeError, match=missing):
                event_class(name)(**{field: value_of(field) for field in required if field != missing})

    def test_is_stored_with_each_of_its_values(self, name: str) -> None:
        values = {field.rstrip("?"): value_of(field.rstrip("?")) for field in catalogue()[name]}
        with capture_events(service="shop", strict=True, keep_personal_data=True) as captured:
            assert captured.client.track(event_class(name)(**values))
        [stored] = captured.events
        assert stored.service == "shop"
        assert stored.user_id == values.pop("user_id", None)
        assert dict(stored.data) == {k: str(v) if isinstance(v, UUID) else v for k, v in values.items()}

    def test_leaves_out_what_was_not_said(self, name: str) -> None:
        required = [field for field in catalogue()[name] if not field.endswith("?")]
        with capture_events(strict=True) as captured:
            captured.client.track(event_class(name)(**{field: value_of(field) for field in required}))
        [stored] = captured.events
        assert set(stored.data) == set(required) - {"user_id"}
        optional = {f.rstrip("?") for f in catalogue()[name] if f.endswith("?")} - {"user_id"}
        assert all(stored.data[field] is None for field in optional)

    def test_takes_ids_and_users_as_text_too(self, name: str) -> None:
        values = {f.rstrip("?"): value_of(f.rstrip("?")) for f in catalogue()[name]}
        with capture_events(strict=True, keep_personal_data=True) as captured:
            captured.client.track(event_class(name)(**values))
            captured.client.track(
                event_class(name)(**{k: str(v) if isinstance(v, UUID) else v for k, v in values.items()})
            )
        first, second = captured.events
        assert (first.data, first.user_id) == (second.data, second.user_id)

    def test_refuses_a_value_of_the_wrong_type(self, name: str) -> None:
        values = {f.rstrip("?"): value_of(f.rstrip("?")) for f in catalogue()[name]}
        with capture_events() as captured:
            for field in values:
                assert not captured.client.track(event_class(name)(**{**values, field: ["wrong"]})) or field == "stack"
        assert all(event.data["stack"] == ["wrong"] for event in captured.events)
