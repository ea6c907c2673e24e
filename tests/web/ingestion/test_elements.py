"""A body becomes the JSON of its elements: as it came, but for what PostgreSQL could not hold."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_analytics.encoding.text import clean_text
from asgi_analytics.web.ingestion.elements import NotAnArray, TooManyElements, depth_exceeds, split

TEXT = st.text(st.one_of(st.characters(), st.sampled_from('\x00\ud800\udbff\udc00\udfff\\"u0/\x1f\U0001f600')))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)


def cleaned(value: Any) -> Any:
    """Return what must be stored; keys that become one by the cleaning are taken out of the comparison elsewhere."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list):
        return [cleaned(item) for item in value]
    if isinstance(value, dict):
        return {cleaned(key): cleaned(item) for key, item in value.items()}
    return value


@given(st.lists(VALUES, max_size=5), st.booleans(), st.sampled_from([None, 1]))
def test_every_text_is_cleaned_and_nothing_else_changes(
    values: list[Any], ascii_only: bool, indent: int | None
) -> None:
    body = json.dumps(values, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    lines = split(body, 100)
    assert [json.loads(line or b"") for line in lines] == [cleaned(value) for value in values]
    for line in lines:
        assert line is not None
        line.decode()


@given(st.lists(VALUES, max_size=5))
def test_what_is_right_stays_byte_for_byte(values: list[Any]) -> None:
    lines = [json.dumps(cleaned(value)).encode() for value in values]
    assert split(b" [" + b" ,\n".join(lines) + b"] ", 100) == lines


def test_an_escaped_backslash_before_u0000_is_no_nul() -> None:
    line = rb'{"a":"\\u0000 \\\\u0000 \\\\\\ud800"}'
    assert split(b"[" + line + b"]", 10) == [line]
    assert split(rb'["\\\u0000"]', 10) == [rb'"\\\ufffd"']


def test_numbers_and_keys_that_occur_twice_are_not_touched() -> None:
    line = b'{"a":1e400,"a":0.10000000000000000000001,"b":123456789012345678901234567890}'
    assert split(b"[" + line + b"]", 10) == [line]


def test_a_byte_order_mark_is_ignored() -> None:
    assert split(b"\xef\xbb\xbf[1]", 10) == [b"1"]


def test_an_element_that_is_not_utf8_costs_no_neighbour() -> None:
    assert split(b'[{"a":1},{"a":"\xff"},{"a":"\xed\xa0\x80"},{"a":2}]', 10) == [
        b'{"a":1}',
        None,
        '{"a":"\ufffd"}'.encode(),
        b'{"a":2}',
    ]


@pytest.mark.parametrize(
    "body",
    [b"", b" ", b"{}", b"null", b"1", b'"x"', b"[", b"[1", b"[1,]", b"[1 2]", b"[1]]", b"[NaN]", b"[tru]", b"[01]",
     b'["\n"]', b'["\x00"]', b'["\\x"]', b"[" * 100_000, b"[" * 100_000 + b'"' + b'\\"' * 1_000_000 + b"]",
     '["ü"]'.encode("utf-16"), b"[]" * 2, b"[1],[2]"],
    ids=lambda body: repr(body[:12]),
)  # fmt: skip
def test_what_is_no_json_array_is_refused(body: bytes) -> None:
    with pytest.raises(NotAnArray):
        split(body, 10)


def test_nesting_that_no_parser_takes_costs_no_neighbour() -> None:
    deep = b"[" * 50_000 + b"]" * 50_000
    assert split(b'[{"a":"[,"}, ' + deep + b' ,{"b":"\\"],"}]', 10) == [b'{"a":"[,"}', deep, b'{"b":"\\"],"}']


def test_too_many_elements_are_counted_before_memory_is_given_to_them() -> None:
    with pytest.raises(TooManyElements):
        split(b"[" + b"1," * 10 + b"1]", 10)
    with pytest.raises(TooManyElements):
        split(b"[" + b"1," * 2_000_000 + b"1]", 10)
    with pytest.raises(TooManyElements):
        split(b"[[" + b"[]," * 1_500_000 + b"[]]]", 10)
    assert len(split(b"[[" + b"1," * 500_000 + b"1]]", 10)) == 1


def test_depth_is_counted_outside_of_strings() -> None:
    assert depth_exceeds(b"[" * 5 + b"]" * 5, 4)
    assert not depth_exceeds(b"[" * 5 + b"]" * 5, 5)
    assert not depth_exceeds(b'["' + b"[" * 50 + b'"]', 4)
    assert not depth_exceeds(b"[" + b"[]," * 50 + b"[]]", 4)
