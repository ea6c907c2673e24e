"""Steps and filters: which events are meant, as a condition of SQL in which each value and name is a parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

from asgi_analytics.encoding.users import is_id, user_uuid
from asgi_analytics.errors import InvalidQuery
from asgi_analytics.reading.question import LONGEST_TEXT, MOST_TEXTS, Text
from asgi_analytics.reading.statements import Dialect

Operator = Literal[
    "exact", "is_not", "contains", "not_contains", "is_set", "is_not_set", "greater_than", "less_than", "between", "in",
]  # fmt: skip
Scalar = (
    bool
    | Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
    | Annotated[float, msgspec.Meta(ge=-1e300, le=1e300)]
    | Annotated[str, msgspec.Meta(max_length=LONGEST_TEXT)]
)
Value = Scalar | Annotated[list[Scalar], msgspec.Meta(max_length=MOST_TEXTS)] | None

MOST_FILTERS = 20
MOST_STEPS = 20
FIELD = "data.…, context.…, or one of event_type, service, user_id, session_id"

_COLUMNS = ("event_type", "service", "session_id", "user_id")


class Filter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a field of an event must be. A field that is not there matches nothing but ``is_not_set``."""

    field: Text
    """``data.…`` or ``context.…``, where a dot leads into an object, or a column: ``event_type``, ``service``,
    ``session_id``, or ``user_id``, which is given as the application says it."""
    operator: Operator = "exact"
    """``contains`` tells upper from lower case; ``greater_than`` and ``less_than`` compare numbers; ``between`` takes
    the two ends, which are included; ``in`` takes a list."""
    value: Value = None
    """Text is compared with the field as text, a number or a boolean with those of its kind only."""


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Events of a type that match all filters."""

    event_type: Text
    where: Annotated[list[Filter], msgspec.Meta(max_length=MOST_FILTERS)] = []
    name: Text | None = None
    """What answers call it; the type unless it is given."""

    @property
    def label(self) -> str:
        """The name, else the type."""
        return self.event_type if self.name is None else self.name


AnyStep = Text | Step


class Parameters:
    """The parameters of a statement that is put together of what was asked, and what it reads of the JSON of events."""

    dialect: Dialect = "postgresql"

    def __init__(self, *values: Any) -> None:
        self.values = list(values)

    def add(self, value: Any, kind: str) -> str:
        """Take a value of a type of SQL, and return what stands for it in the statement: ``$3::text``."""
        self.values.append(value)
        return f"${len(self.values)}::{kind}"

    def null(self, kind: str) -> str:
        """Return a null of a type."""
        return f"NULL::{kind}"

    def user(self) -> str:
        """Return the user of an event as text."""
        return "e.user_id::text"

    def environment(self) -> str:
        """Return the environment of an event."""
        return "e.context ->> 'environment'"

    def text(self, column: str, path: list[str]) -> str:
        """Return the text of what lies below a path, null if there is nothing."""
        return f"(e.{column} #>> {self.add(path, 'text[]')})"

    def json(self, column: str, path: list[str]) -> str:
        """Return what lies below a path, as `number_of_json` takes it."""
        return f"(e.{column} #> {self.add(path, 'text[]')})"

    def number_of_json(self, json: str) -> str:
        """Return the number that the JSON is, null if it is none."""
        return f"analytics_number({json})"

    def is_any_text(self, text: str, values: list[str]) -> str:
        """Return the condition that a text is one of some."""
        return f"{text} = ANY ({self.add(values, 'text[]')})"

    def is_any_json(self, column: str, path: list[str], values: list[Any]) -> str:
        """Return the condition that what lies below a path is one of some numbers and booleans."""
        known = self.add([msgspec.json.encode(value).decode() for value in values], "jsonb[]")
        return f"{self.json(column, path)} = ANY ({known})"

    def position(self, text: str, part: str) -> str:
        """Return where in a text another one begins, 0 for nowhere."""
        return f"strpos({text}, {self.add(part, 'text')})"


class SqliteParameters(Parameters):
    """The same on SQLite, whose functions are those of `asgi_analytics.reading.sqlite_functions`."""

    dialect: Dialect = "sqlite"

    def add(self, value: Any, kind: str) -> str:
        """Take a value, and return what stands for it in the statement: ``$3``."""
        self.values.append(value)
        return f"${len(self.values)}"

    def null(self, kind: str) -> str:
        """Return a null, which has no type."""
        return "NULL"

    def user(self) -> str:
        """Return the user of an event, which is text."""
        return "e.user_id"

    def environment(self) -> str:
        """Return the environment of an event."""
        return "e.environment"

    def text(self, column: str, path: list[str]) -> str:
        """Return the text of what lies below a path, null if there is nothing."""
        return f"analytics_text({self.json(column, path)})"

    def json(self, column: str, path: list[str]) -> str:
        """Return a document and a path in it, as the functions take them."""
        return ", ".join([f"e.{column}", *(self.add(name, "text") for name in path)])

    def number_of_json(self, json: str) -> str:
        """Return the number that lies below a path, null if it is none."""
        return f"analytics_number({json})"

    def is_any_text(self, text: str, values: list[str]) -> str:
        """Return the condition that a text is one of some."""
        known = self.add(values, "text[]")
        return f"{text} IN (SELECT j.value FROM json_each({known}) AS j)"  # noqa: S608 - a parameter

    def is_any_json(self, column: str, path: list[str], values: list[Any]) -> str:
        """Return the condition that what lies below a path is one of some numbers and booleans."""
        return f"analytics_is_any({self.add(values, 'jsonb[]')}, {self.json(column, path)})"

    def position(self, text: str, part: str) -> str:
        """Return where in a text another one begins, 0 for nowhere."""
        return f"instr({text}, {self.add(part, 'text')})"


def parameters_of(dialect: Dialect, *values: Any) -> Parameters:
    """Return the parameters of a statement for one kind of database."""
    return SqliteParameters(*values) if dialect == "sqlite" else Parameters(*values)


def as_steps(given: Sequence[str | Step]) -> list[Step]:
    """Return steps, each of a type alone or with filters."""
    return [one if isinstance(one, Step) else Step(one) for one in given]


def condition(field: str, step: Step, parameters: Parameters) -> str:
    """Return the condition that a row ``e`` of ``analytics_events`` is of a step.

    Raises `InvalidQuery`, which names ``field``, for a filter that says nothing: an unknown field, or a value that the
    operator cannot be asked with.
    """
    terms = [f"e.event_type = {parameters.add(step.event_type, 'text')}", *filters(field, step, parameters)]
    return f"({' AND '.join(terms)})"


def filters(field: str, step: Step, parameters: Parameters) -> list[str]:
    """Return the conditions of a step for a row ``e`` that is of its type. Raises as `condition` does."""
    return [_term(field, one, parameters) for one in step.where]


def text_of(field: str, name: str, parameters: Parameters) -> str:
    """Return the text of a field of a row ``e``, null if there is none. Raises `InvalidQuery`, naming ``field``."""
    if name in _COLUMNS:
        return parameters.user() if name == "user_id" else f"e.{name}"
    return parameters.text(*_path(field, name))


def number_of(field: str, name: str, parameters: Parameters) -> str:
    """Return the number of a field of a row ``e``, null if it is none. Raises `InvalidQuery`, naming ``field``."""
    return parameters.number_of_json(json_of(field, name, parameters))


def json_of(field: str, name: str, parameters: Parameters) -> str:
    """Return the JSON of a field of a row ``e``, null if there is none. Raises `InvalidQuery`, naming ``field``."""
    return parameters.json(*_path(field, name))


def _path(field: str, name: str) -> tuple[str, list[str]]:
    column, _, rest = name.partition(".")
    if column not in ("data", "context") or not rest:
        raise InvalidQuery(field, f"has a field that is not known: use {FIELD}")
    return column, rest.split(".")


def _term(field: str, one: Filter, parameters: Parameters) -> str:
    value = _user(field, one.value) if one.field == "user_id" else one.value
    match one.operator:
        case "is_set":
            return f"{text_of(field, one.field, parameters)} IS NOT NULL"
        case "is_not_set":
            return f"{text_of(field, one.field, parameters)} IS NULL"
        case "exact":
            return _is_one_of(field, one, [_scalar(field, one, value)], parameters)
        case "is_not":
            equal = _is_one_of(field, one, [_scalar(field, one, value)], parameters)
            return f"({text_of(field, one.field, parameters)} IS NOT NULL AND NOT {equal})"
        case "in":
            if not isinstance(value, list):
                raise _wrong(field, one, "a list")
            return _is_one_of(field, one, value, parameters)
        case "contains" | "not_contains":
            if not isinstance(value, str):
                raise _wrong(field, one, "a text")
            sign = ">" if one.operator == "contains" else "="
            return f"{parameters.position(text_of(field, one.field, parameters), value)} {sign} 0"
    number = number_of(field, one.field, parameters)
    if one.operator == "between":
        if not (isinstance(value, list) and len(value) == 2):
            raise _wrong(field, one, "a list of two numbers")
        low, high = (parameters.add(_number(field, one, end), "float8") for end in value)
        return f"{number} BETWEEN {low} AND {high}"
    sign = ">" if one.operator == "greater_than" else "<"
    return f"{number} {sign} {parameters.add(_number(field, one, value), 'float8')}"


def _is_one_of(field: str, one: Filter, values: Sequence[Any], parameters: Parameters) -> str:
    """Return the condition that a field is equal to one of some values; it is never null."""
    texts = [value for value in values if isinstance(value, str)]
    others = [value for value in values if not isinstance(value, str)]
    if others and one.field in _COLUMNS:
        raise _wrong(field, one, "a text")
    terms = []
    if texts or not others:
        terms.append(parameters.is_any_text(text_of(field, one.field, parameters), texts))
    if others:
        terms.append(parameters.is_any_json(*_path(field, one.field), others))
    return f"coalesce({' OR '.join(terms)}, false)"


def _user(field: str, value: Any) -> Any:
    """Return the user of a filter as the column has it."""
    if isinstance(value, list):
        return [_user(field, one) for one in value]
    if value is None or isinstance(value, float):
        return value
    if not is_id(value):
        raise InvalidQuery(field, "filters user_id by what is no id of a user: use a UUID, a text or an integer")
    return str(user_uuid(value)[0])


def _scalar(field: str, one: Filter, value: Any) -> Any:
    if value is None or isinstance(value, list):
        raise _wrong(field, one, "a text, a number, true or false")
    return value


def _number(field: str, one: Filter, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(field, one, "a number")
    return float(value)


def _wrong(field: str, one: Filter, wanted: str) -> InvalidQuery:
    return InvalidQuery(field, f"has a filter {one.operator} whose value must be {wanted}")
