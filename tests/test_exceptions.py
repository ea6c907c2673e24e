"""What is stored of an exception: its type, where it came from, and a fingerprint that stays."""

from __future__ import annotations

import contextvars
import functools
import gc
import json
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from asgi_analytics import AnalyticsClient
from asgi_analytics.context import RequestContext, current
from asgi_analytics.events.captured import ApplicationError
from asgi_analytics.exceptions import MAX_FRAMES, MAX_MESSAGE, describe
from asgi_analytics.testing import CapturedEvents


def raised(function: Callable[[], object]) -> BaseException:
    try:
        function()
    except BaseException as exc:
        return exc
    raise AssertionError("nothing was raised")


def described(function: Callable[[], object]) -> ApplicationError:
    return describe(raised(function), handled=False)


def program(source: str, name: str = "/srv/shop/views.py") -> Callable[[], object]:
    names: dict[str, Any] = {"__name__": "shop.views"}
    exec(compile(source, name, "exec"), names)
    return names["view"]  # type: ignore[no-any-return]


def test_builtin_types_have_their_name_and_others_their_module() -> None:
    class Mine(Exception):
        pass

    def mine() -> None:
        raise Mine

    assert described(lambda: 1 / 0).error_type == "ZeroDivisionError"
    assert described(lambda: json.loads("{")).error_type == "json.decoder.JSONDecodeError"
    assert described(mine).error_type.startswith("tests.test_exceptions.test_builtin_types")
    assert described(mine).error_type.endswith(".<locals>.Mine")


def test_frames_are_innermost_first_and_ours_before_the_libraries() -> None:
    def decode() -> None:
        json.loads("{")

    event = described(decode)

    files = [frame["file"] for frame in event.stack]
    functions = [frame["function"] for frame in event.stack]
    assert functions[:2] == ["decode", "raised"]
    assert functions[2:] == ["raw_decode", "decode", "loads"]
    assert files[:2] == ["tests/test_exceptions.py"] * 2
    assert files[2:] == ["json/decoder.py", "json/decoder.py", "json/__init__.py"]
    assert all(set(frame) == {"file", "line", "function"} for frame in event.stack)
    assert event.stack[0]["line"] == decode.__code__.co_firstlineno + 1


SOURCE = """
def view():
    return price({})

def price(item):
    return item["price"]
"""


def test_the_fingerprint_is_stable_under_line_shifts_and_message_changes() -> None:
    first = described(program(SOURCE)).fingerprint

    assert described(program("\n# a comment\n\n" + SOURCE.replace("def price", "\n\ndef price"))).fingerprint == first
    assert described(program(SOURCE.replace('"price"', '"cost"'))).fingerprint == first
    assert described(program(SOURCE)).fingerprint == first
    assert described(program(SOURCE.replace("price", "cost"))).fingerprint != first
    assert described(program(SOURCE.replace('item["price"]', "1 / 0"))).fingerprint != first
    assert described(program(SOURCE, "/srv/shop/other.py")).fingerprint != first


def test_the_fingerprint_does_not_count_recursion() -> None:
    def down(depth: int) -> None:
        if depth == 0:
            raise ValueError
        down(depth - 1)

    assert described(lambda: down(3)).fingerprint == described(lambda: down(40)).fingerprint


def test_long_messages_are_cut_and_bad_ones_survive() -> None:
    class Bad(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no message")

    def long() -> None:
        raise ValueError("x" * 100_000)

    def bad() -> None:
        raise Bad

    assert len(described(long).error_message) == MAX_MESSAGE
    assert "RuntimeError" in described(bad).error_message


def test_a_deep_stack_keeps_both_ends() -> None:
    def down(depth: int) -> None:
        if depth == 0:
            raise ValueError
        down(depth - 1)

    event = described(lambda: down(500))

    assert len(event.stack) <= MAX_FRAMES
    assert event.stack[0]["function"] == "down"
    assert event.stack[-1]["function"] == "raised"


def test_causes_are_described_and_their_frames_follow() -> None:
    def inner() -> None:
        raise KeyError("k")

    def outer() -> None:
        try:
            inner()
        except KeyError as error:
            raise ValueError("v") from error

    event = described(outer)

    assert event.context == {"causes": [{"error_type": "KeyError", "error_message": "'k'"}]}
    assert [frame["function"] for frame in event.stack] == ["outer", "raised", "inner", "outer"]


def test_a_chain_that_bites_its_tail_ends() -> None:
    first, second = ValueError("a"), KeyError("b")
    first.__context__, second.__context__ = second, first

    assert describe(first, handled=True).error_type == "ValueError"


def test_a_group_names_its_members() -> None:
    def group() -> None:
        raise BaseExceptionGroup("several", [raised(lambda: 1 / 0), ValueError("v")])

    event = described(group)

    assert event.error_type == "ExceptionGroup"
    assert event.context is not None
    assert [one["error_type"] for one in event.context["exceptions"]] == ["ZeroDivisionError", "ValueError"]


def test_no_value_and_no_local_is_stored() -> None:
    def secretive() -> None:
        password = "hunter" + "2"  # noqa: F841
        raise ValueError("no")

    assert b"hunter2" not in AnalyticsClient(service="t")._encoder.encode(described(secretive))


def test_nothing_is_kept_alive(analytics: CapturedEvents) -> None:
    class Thing:
        pass

    things: list[weakref.ref[Thing]] = []

    def fail() -> None:
        thing = Thing()
        things.append(weakref.ref(thing))
        raise ValueError

    def reports() -> None:
        try:
            fail()
        except ValueError as error:
            analytics.client.track_error(error)

    contextvars.Context().run(reports)
    gc.collect()
    assert things[0]() is None
    assert len(analytics.events) == 1


# -- track_error


def test_an_exception_is_reported_once_for_each_client(analytics: CapturedEvents) -> None:
    client = analytics.client
    error = raised(lambda: 1 / 0)

    assert client.track_error(error, context={"order": 7})
    assert not client.track_error(error)
    assert not client.intake.error(error)
    assert AnalyticsClient(service="other").track_error(error)
    [event] = analytics.events
    assert event.data["handled"] is True
    assert event.data["context"] == {"order": 7}


def test_one_object_in_two_requests_is_two_events(analytics: CapturedEvents) -> None:
    error = raised(lambda: 1 / 0)

    def in_a_request() -> bool:
        current.set(RequestContext())
        return analytics.client.intake.error(error) and not analytics.client.intake.error(error)

    assert contextvars.copy_context().run(in_a_request)
    assert contextvars.copy_context().run(in_a_request)
    assert len(analytics.events) == 2


def test_a_group_of_what_was_reported_is_not_reported_again(analytics: CapturedEvents) -> None:
    errors = [raised(lambda: 1 / 0), raised(lambda: int("a"))]
    for error in errors:
        assert analytics.client.intake.error(error)

    assert not analytics.client.intake.error(BaseExceptionGroup("both", errors))
    assert not analytics.client.intake.error(BaseExceptionGroup("one", errors[:1]))


def test_an_excluded_request_has_no_errors(analytics: CapturedEvents) -> None:
    request = RequestContext()
    request.excluded = True

    def in_it() -> bool:
        current.set(request)
        return analytics.client.track_error(ValueError())

    assert not contextvars.copy_context().run(in_it)
    assert analytics.events == []


@pytest.mark.parametrize("context", [{"x": object()}, {"when": "\ud800"}])
def test_an_odd_context_raises_nothing(analytics: CapturedEvents, context: dict[str, Any]) -> None:
    analytics.client.track_error(ValueError("v"), context=context)


def test_a_partial_and_a_lambda_have_frames(analytics: CapturedEvents) -> None:
    assert described(functools.partial(json.loads, "{")).stack[0]["function"] == "raised"
