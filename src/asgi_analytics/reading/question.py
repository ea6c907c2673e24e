"""What makes a function a question: its parameters are checked, and what it counts is said in one sentence."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin
from uuid import UUID

import msgspec

from asgi_analytics.encoding.metric_record import MAX_TAGS
from asgi_analytics.encoding.text import clean_text
from asgi_analytics.encoding.users import is_id
from asgi_analytics.errors import InvalidQuery
from asgi_analytics.reading.ranges import MOMENT, Moment

LONGEST_TEXT = 2000
MOST_TEXTS = 100
LISTS = (list, Sequence)

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_TEXT)]
"""A filter: what a value must be equal to."""
Texts = Annotated[list[Text], msgspec.Meta(min_length=1, max_length=MOST_TEXTS)]
Tags = Annotated[dict[str, Text | int | bool], msgspec.Meta(max_length=MAX_TAGS)]
"""A filter: what the tags of a metric must have."""
Limit = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
Duration = timedelta
"""A timedelta, or a number of seconds, as JSON has it."""
User = UUID | str | int
"""A user as the application says it; see `asgi_analytics.encoding.users.user_uuid`."""

Method = Literal["GET", "POST", "DELETE"]
LONGEST_DURATION = timedelta(days=366)
DURATION = "a duration of at least a microsecond and at most 366 days: a timedelta, or seconds"

ENVIRONMENT = "is known to raw rows only, and this is answered from aggregates: leave it out"

Function = TypeVar("Function", bound=Callable[..., Any])


class Question(msgspec.Struct, frozen=True):
    """One function of this package that can be asked."""

    name: str
    function: Callable[..., Any]
    """Takes the source first, then the parameters."""
    approximates: Callable[..., bool]
    path: str
    """Where the API answers it. What stands in braces is a parameter."""
    bare: bool
    """Whether the API answers without what the answer is about."""
    method: Method
    """``POST`` takes the parameters from the body of a request."""
    changes: bool
    """Whether it changes what is kept, which the API allows to few."""

    @property
    def definition(self) -> str:
        """The sentence that says what is counted: the first of the docstring."""
        text = " ".join((inspect.getdoc(self.function) or "").split("\n\n")[0].split())
        return text.partition(". ")[0].removesuffix(".") + "."

    @property
    def signature(self) -> inspect.Signature:
        """The parameters with their types, without the source."""
        known = inspect.signature(self.function)
        types = self.types
        parameters = [p.replace(annotation=types[p.name]) for p in list(known.parameters.values())[1:]]
        return known.replace(parameters=parameters, return_annotation=types["return"])

    @property
    def types(self) -> dict[str, Any]:
        """The type of each parameter, and what is returned."""
        return _types(inspect.unwrap(self.function))

    def checked(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments, each of its declared type. Raises `InvalidQuery` with the name of one that is not."""
        return {name: check(name, value, self.types[name]) for name, value in arguments.items()}


QUESTIONS: dict[str, Question] = {}
"""Every question whose module was imported, by its name."""


def question(
    path: str,
    *,
    bare: bool = False,
    approximates: Callable[..., bool] | bool = False,
    method: Method = "GET",
    changes: bool = False,
) -> Callable[[Function], Function]:
    """Make an async function a question: ``async def name(source, *, parameter: type = default) -> answer``.

    ``path`` is where the API answers it, for instance ``/errors/{fingerprint}``; ``bare`` leaves out what the answer is
    about, as only those do that had no such thing in the first API. ``approximates`` tells of the arguments whether the
    answer is approximate (within 2 %). ``method`` is how the API is asked, ``changes`` tells whether that changes what
    is kept.
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)

        @functools.wraps(function)
        async def ask(source: Any, *args: Any, **kwargs: Any) -> Any:
            if "environment" not in signature.parameters and kwargs.pop("environment", None) is not None:
                raise InvalidQuery("environment", ENVIRONMENT)
            bound = signature.bind(source, *args, **kwargs)
            arguments = {name: value for name, value in bound.arguments.items() if value is not source}
            return await function(source, **asked.checked(arguments))

        tells = approximates if callable(approximates) else lambda **_: bool(approximates)
        asked = QUESTIONS[function.__name__] = Question(function.__name__, ask, tells, path, bare, method, changes)
        return typing.cast("Function", ask)

    return decorate


@functools.cache
def _types(function: Any) -> dict[str, Any]:
    return typing.get_type_hints(function, include_extras=True)


def check(field: str, value: Any, kind: Any) -> Any:
    """Return a value that is of the type, with text as it would have been stored. Raises `InvalidQuery`."""
    if value is None and type(None) in get_args(kind):
        return None
    kinds = _members(kind)
    if date in kinds:
        if not isinstance(value, date):
            raise InvalidQuery(field, f"must be {MOMENT}")
        return value
    if timedelta in kinds:
        return _duration(field, value)
    if kinds == _members(User):
        if not is_id(value) or value == "" or len(str(value)) > LONGEST_TEXT:
            raise InvalidQuery(field, "must be the id of a user: a UUID, a text or an integer")
        return _clean(value)
    try:
        return msgspec.convert(_clean(value), kind)
    except (msgspec.ValidationError, UnicodeError):
        raise InvalidQuery(field, f"must be {_described(kind)}") from None


def _duration(field: str, value: Any) -> timedelta:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= LONGEST_DURATION.total_seconds():
        value = timedelta(seconds=value)
    if not isinstance(value, timedelta) or not timedelta(0) < value <= LONGEST_DURATION:
        raise InvalidQuery(field, f"must be {DURATION}")
    return value


def _members(kind: Any) -> frozenset[Any]:
    members = get_args(kind) if get_origin(kind) in (typing.Union, type(Moment)) else (kind,)
    return frozenset(member for member in members if member is not type(None))


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return clean_text(str(value))
    if isinstance(value, list | tuple):
        return [_clean(one) for one in value]
    if isinstance(value, msgspec.Struct):
        return _clean(msgspec.structs.asdict(value))
    if isinstance(value, dict):
        return {_clean(name): _clean(one) for name, one in value.items()}
    return value


def _described(kind: Any) -> str:
    """Say in words what a type allows."""
    [member, *others] = sorted(_members(kind), key=str)
    if others:
        return " or ".join(_described(one) for one in (member, *others))
    if get_origin(member) is Literal:
        return "one of " + ", ".join(map(str, get_args(member)))
    meta = msgspec.Meta()
    if get_origin(member) is Annotated:
        member, *extras = get_args(member)
        meta = next((extra for extra in extras if isinstance(extra, msgspec.Meta)), meta)
    words = {int: "an integer", float: "a number", str: "a text", bool: "true or false", UUID: "a UUID"}
    if get_origin(member) in LISTS:
        [item] = get_args(member)
        items = "texts" if len(_members(item)) == 1 else "event types, or objects with event_type and where"
        return f"a list of {meta.min_length or 0} to {meta.max_length} {items}"
    if get_origin(member) is dict:
        return f"an object of at most {meta.max_length} texts, integers or booleans"
    if meta.ge is not None and meta.le is not None:
        return f"{words.get(member, 'a value')} from {meta.ge} to {meta.le}"
    if meta.max_length is not None:
        return f"{words.get(member, 'a value')} of 1 to {meta.max_length} characters"
    return words.get(member, "a value of its type")
