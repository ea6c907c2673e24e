"""What is replaced in psycopg looks like the original and is put back; and psycopg need not be there."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import psycopg
import psycopg.types
import pytest

from asgi_analytics.instrumentation.psycopg import instrument_psycopg
from asgi_analytics.instrumentation.psycopg.statements import text_of
from asgi_analytics.testing import CapturedEvents, capture_events
from tests.instrumentation.queries.asked import queries
from tests.kit.scripts import run_script

OWNERS: list[Any] = [
    *psycopg.ServerCursor.__mro__[:-2],
    *psycopg.AsyncServerCursor.__mro__[:-2],
    *psycopg.Pipeline.__mro__[:-1],
    psycopg.Connection,
    psycopg.AsyncConnection,
    psycopg.types.TypeInfo,
]


def everything() -> dict[tuple[str, str], Any]:
    return {(owner.__name__, name): value for owner in OWNERS for name, value in vars(owner).items()}


def test_a_replacement_looks_like_the_original_and_is_put_back() -> None:
    def facts() -> dict[tuple[str, str], tuple[Any, ...]]:
        return {
            key: (
                type(value),
                inspect.signature(value),
                inspect.iscoroutinefunction(value),
                inspect.isgeneratorfunction(value),
                inspect.isasyncgenfunction(value),
                inspect.getdoc(value),
                value.__qualname__,
                value.__module__,
            )
            for key, value in everything().items()
            if inspect.isfunction(value)
        }

    before, known = everything(), facts()
    with capture_events() as captured:
        handle = instrument_psycopg(captured.client)
        replaced = {key: value for key, value in everything().items() if value is not before[key]}
        assert len(replaced) > 15
        assert facts() == known
        for function in filter(inspect.isfunction, replaced.values()):
            assert pickle.loads(pickle.dumps(function)) is function
        handle.uninstrument()
    after = everything()
    assert list(after) == list(before)
    assert all(after[key] is before[key] for key in before)


def test_a_query_is_only_passed_on_after_uninstrument(dsn: str) -> None:
    with capture_events() as captured:
        handle = instrument_psycopg(captured.client)
        execute = psycopg.Cursor.execute
        with psycopg.connect(dsn) as connection:
            cursor = connection.cursor("c")
            cursor.execute("SELECT generate_series(1, 9)")
            cursor.fetchmany(2)
            handle.uninstrument()
            assert [event.data["rows_affected"] for event in queries(captured)] == [2]
            assert len(cursor.fetchall()) == 7
            cursor.close()
            assert execute(connection.cursor(), "SELECT 1").fetchall() == [(1,)]
        assert len(queries(captured)) == 1


def test_a_method_that_is_missing_is_left_out_with_a_warning(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(psycopg.Cursor, "stream")
    with capture_events() as captured:
        with pytest.warns(RuntimeWarning, match=r"psycopg \S+ has no Cursor.stream that is known here") as caught:
            handle = instrument_psycopg(captured.client)
        assert caught[0].filename == __file__
        with psycopg.connect(dsn) as connection:
            connection.execute("SELECT 1")
        handle.uninstrument()
        assert len(queries(captured)) == 1


def test_template_strings_have_a_text_without_their_values(connection: psycopg.Connection[Any]) -> None:
    class Interpolation:
        def __init__(self, value: object, format_spec: str = "") -> None:
            self.value, self.format_spec = value, format_spec

    class Template(list[Any]):
        interpolations = ()

    inner = Template(["id > ", Interpolation(3)])
    template = Template(["SELECT ", Interpolation("x", "l"), " FROM ", Interpolation("t", "i"), " WHERE "])
    template.append(Interpolation(inner, "q"))
    assert text_of(template, connection) == "SELECT '' FROM \"t\" WHERE id > $1"


def test_what_cannot_be_composed_is_left_to_psycopg(captured: CapturedEvents, dsn: str) -> None:
    class Odd(psycopg.sql.Composable):
        def __init__(self) -> None:
            super().__init__("odd")

        def as_bytes(self, context: Any = None) -> bytes:
            raise RuntimeError("odd")

    with psycopg.connect(dsn) as connection, pytest.raises(RuntimeError, match="odd"):
        connection.cursor().execute(Odd())  # type: ignore[call-overload]  # on purpose
    assert queries(captured) == []


def test_without_psycopg_the_error_says_what_to_install() -> None:
    run_script(
        """
        sys.modules["psycopg"] = None
        import asgi_analytics
        try:
            import asgi_analytics.instrumentation.psycopg
        except asgi_analytics.errors.MissingExtra as error:
            assert str(error) == "psycopg is not installed: pip install 'asgi-analytics[psycopg]'", error
        else:
            raise AssertionError("imported")
        """
    )
