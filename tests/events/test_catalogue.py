"""The catalogue: the contract's table word for word, and what holds for every class that there is."""

from __future__ import annotations

import pkgutil
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin
from uuid import UUID

import msgspec
import pytest

from asgi_analytics import events
from asgi_analytics.events.base import event_type_of, event_types
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
VALUES = {UUID: ID, str: "a text", int: 7, float: 12.5, bool: True}
SHIPPED = {
    cls.__name__: cls for _, cls in sorted(event_types().items()) if cls.__module__.startswith("asgi_analytics.")
}


def catalogue() -> dict[str, list[str]]:
    rows: dict[str, list[str]] = {}
    for line in TABLE.strip().splitlines():
        names, fields = line.strip("| ").split(" | ")
        rows.update(dict.fromkeys(names.split(", "), fields.split(", ")))
    return rows


def value_of(field: msgspec.structs.FieldInfo) -> Any:
    """Return a value of the declared type."""
    if field.name == "user_id":
        return USER
    annotation = field.type
    if get_origin(annotation) in (Union, UnionType):
        annotation = next(part for part in get_args(annotation) if part is not type(None))
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is list:
        return [{"file": "shop.py", "line": 7, "function": "buy"}]
    return {"basket": 3} if get_origin(annotation) is dict else VALUES[annotation]


def fields_of(name: str) -> list[msgspec.structs.FieldInfo]:
    return list(msgspec.structs.fields(SHIPPED[name]))


def values_of(name: str, *, required: bool = False) -> dict[str, Any]:
    return {field.name: value_of(field) for field in fields_of(name) if field.required or not required}


@pytest.mark.parametrize("name", catalogue())
def test_an_event_of_the_contract_has_its_fields_in_their_order(name: str) -> None:
    assert [field.name if field.required else f"{field.name}?" for field in fields_of(name)] == catalogue()[name]


def test_every_event_of_the_contract_is_there() -> None:
    assert len(catalogue()) == 29
    assert set(catalogue()) <= set(SHIPPED)


def test_every_file_of_the_catalogue_is_exported() -> None:
    areas = {module.name for module in pkgutil.iter_modules(events.__path__)} - {"base", "named"}
    assert {cls.__module__.rpartition(".")[2] for cls in SHIPPED.values()} == areas
    assert all(getattr(events, name) is cls for name, cls in SHIPPED.items())


@pytest.mark.parametrize("name", SHIPPED)
class TestEachEvent:
    def test_defaults_to_none_if_it_is_optional(self, name: str) -> None:
        assert all(field.required or field.default is None for field in fields_of(name))

    def test_has_its_name_in_snake_case_for_a_tag(self, name: str) -> None:
        expected = TAGS.get(name) or "".join(f"_{c.lower()}" if c.isupper() else c for c in name).strip("_")
        assert event_type_of(SHIPPED[name]) == expected

    def test_is_frozen(self, name: str) -> None:
        event = SHIPPED[name](**values_of(name))
        with pytest.raises(AttributeError):
            setattr(event, fields_of(name)[0].name, "another")

    def test_demands_what_is_not_optional(self, name: str) -> None:
        required = values_of(name, required=True)
        for missing in required:
            with pytest.raises(TypeError, match=missing):
                SHIPPED[name](**{field: value for field, value in required.items() if field != missing})

    def test_is_stored_with_each_of_its_values(self, name: str) -> None:
        values = values_of(name)
        with capture_events(service="shop", strict=True, keep_personal_data=True) as captured:
            assert captured.client.track(SHIPPED[name](**values))
        [stored] = captured.events
        assert stored.service == "shop"
        assert stored.user_id == values.pop("user_id", None)
        assert dict(stored.data) == {k: str(v) if isinstance(v, UUID) else v for k, v in values.items()}

    def test_leaves_out_what_was_not_given(self, name: str) -> None:
        required = values_of(name, required=True)
        with capture_events(strict=True) as captured:
            captured.client.track(SHIPPED[name](**required))
        [stored] = captured.events
        assert set(stored.data) == set(required) - {"user_id"}
        optional = set(values_of(name)) - set(required) - {"user_id"}
        assert all(stored.data[field] is None for field in optional)

    def test_takes_ids_and_users_as_text_too(self, name: str) -> None:
        values = values_of(name)
        with capture_events(strict=True, keep_personal_data=True) as captured:
            captured.client.track(SHIPPED[name](**values))
            captured.client.track(SHIPPED[name](**{k: str(v) if isinstance(v, UUID) else v for k, v in values.items()}))
        first, second = captured.events
        assert (first.data, first.user_id) == (second.data, second.user_id)

    def test_refuses_a_value_of_the_wrong_type(self, name: str) -> None:
        values = values_of(name)
        wrong = object()
        with capture_events() as captured:
            for field in values:
                assert not captured.client.track(SHIPPED[name](**{**values, field: wrong}))
        assert captured.events == []
