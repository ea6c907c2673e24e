"""The harnesses hold for their seeds, and for bytes that hypothesis makes of them; atheris looks further."""

from __future__ import annotations

from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_analytics.instrumentation.queries.statement import normalise
from tests.fuzz import batches, statements


@pytest.mark.parametrize("harness", [statements, batches], ids=lambda harness: harness.__name__.rpartition(".")[2])
def test_every_seed_keeps_the_promises(harness: ModuleType) -> None:
    assert len(harness.SEEDS) >= 5
    check_all(harness)


@pytest.mark.parametrize("mode", [b"", b"\x01"])
@settings(max_examples=200)
@given(parts=st.lists(st.sampled_from(statements.WORDS) | st.binary(max_size=20), max_size=20))
def test_any_statement_keeps_the_promises(mode: bytes, parts: list[bytes]) -> None:
    statements.check(mode + b" ".join(parts))


@pytest.mark.parametrize("mode", [b"", b"\x01", b"\x02"])
@settings(max_examples=200)
@given(st.sampled_from(batches.SEEDS), st.lists(st.tuples(st.integers(0, 400), st.sampled_from(batches.WORDS))))
def test_any_body_keeps_the_promises(mode: bytes, seed: bytes, changes: list[tuple[int, bytes]]) -> None:
    body = bytearray(seed)
    for place, word in changes:
        body[place : place + len(word)] = word
    batches.check(mode + bytes(body))


def test_a_broken_promise_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statements, "normalise", lambda text: normalise(text.replace("'", " ")))
    with pytest.raises(AssertionError):
        check_all(statements)
    monkeypatch.setattr(batches, "split", lambda body, most: [b"{}"])
    with pytest.raises(AssertionError):
        check_all(batches)


def check_all(harness: ModuleType) -> None:
    for seed in harness.SEEDS:
        harness.check(seed)
