"""Whatever anybody writes into a text, a log line stays one line, and holds nothing of an event, nor a secret."""

from __future__ import annotations

import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_analytics import log as _log
from asgi_analytics.errors import OperatorError
from asgi_analytics.log import LONGEST, failure, log_problem, one_line

NASTY = st.text(st.one_of(st.characters(), st.sampled_from("\n\r\x1b\x00\x7f\x85\x9b\u2028\u2029\u202e\ud800\t\v\f%")))


@given(NASTY)
def test_any_text_becomes_one_printable_line(text: str) -> None:
    said = one_line(text)
    assert said.isprintable()
    assert len(said.splitlines()) <= 1
    assert len(said) <= LONGEST
    assert one_line(said) == said
    said.encode()


def test_what_can_be_printed_stays_and_what_cannot_is_written_out() -> None:
    assert one_line("größe 😀 %s \\x1b") == "größe 😀 %s \\x1b"
    assert one_line("a\x1b[31m\nERROR b\u202e\x00") == "a\\x1b[31m ERROR b\\u202e\\x00"
    assert one_line(f"{'x' * LONGEST}y") == f"{'x' * (LONGEST - 1)}…"
    assert one_line(None) == "None"


@given(NASTY)
def test_a_problem_is_one_record_of_one_line(text: str) -> None:
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    vars(handler)["emit"] = records.append
    _log.log.addHandler(handler)
    try:
        log_problem(object(), "a problem of %d: %s", 7, text)
    finally:
        _log.log.removeHandler(handler)
    [record] = records
    assert record.getMessage() == f"a problem of 7: {one_line(text)}"


def test_the_text_of_another_error_is_not_repeated_but_its_place_is() -> None:
    with pytest.raises(ValueError, match="hunter2") as caught:
        int("hunter2")
    assert re.fullmatch(r"ValueError \(test_log_lines.py, line \d+\)", failure(caught.value))
    assert failure(ValueError("hunter2")) == "ValueError"
    assert failure(OperatorError("run analytics-migrate all")) == "run analytics-migrate all"
