"""The parameters of a question in a URL: they follow from the signature of its function."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from urllib.parse import parse_qsl

import msgspec

from asgi_analytics.errors import InvalidQuery
from asgi_analytics.reading.question import ENVIRONMENT, LISTS, LONGEST_DURATION, LONGEST_TEXT, Question, User
from asgi_analytics.reading.steps import Step
from asgi_analytics.web.api.refusals import FIELDS, Refusal, refusal, wrong

MOST_BYTES = 8192
"""Of a path and its query string together."""
MOST_PARAMETERS = 256

Format = Literal["json", "csv", "ndjson"]
FORMATS: tuple[Format, ...] = get_args(Format)

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?([eE][+-]?[0-9]{1,2})?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,60}")

_USER = frozenset(get_args(User))
_ENVIRONMENT = wrong("environment", ENVIRONMENT)


class Parameter:
    """One parameter: ``name`` in a URL, ``argument`` in Python, and its ``kind``, a type without None."""

    def __init__(self, argument: str, annotation: Any, default: Any, *, in_path: bool) -> None:
        self.argument = argument
        self.name = FIELDS.get(argument, argument)
        self.is_required = default is inspect.Parameter.empty
        self.default = None if self.is_required else default
        self.in_path = in_path
        self.kind = annotation
        members = [member for member in _members(annotation) if member is not type(None)]
        self.members = frozenset(members)
        if len(members) == 1:
            [self.kind] = members
        self.is_list = get_origin(_bare(self.kind)) in LISTS
        self.is_object = get_origin(_bare(self.kind)) is dict
        """Whether it is written as JSON."""

    def read(self, texts: Sequence[str]) -> Any:
        """Return the argument that the texts of a URL stand for; the question checks it."""
        if self.is_list:
            [item] = get_args(_bare(self.kind))
            return [_read(text, frozenset(_members(item))) for text in texts]
        if len(texts) > 1:
            raise wrong(self.name, "is given more than once")
        return _read(texts[0], self.members)

    def convert(self, value: Any) -> Any:
        """Return the argument that a value of JSON stands for; the question checks it."""
        return _moment(value) if date in self.members and isinstance(value, str) else value

    @property
    def has_schema(self) -> bool:
        """Whether its schema is that of its type."""
        return not self.members & {date, timedelta} and self.members != _USER

    def schema(self, of_type: Mapping[Any, dict[str, Any]]) -> dict[str, Any]:
        """Return the JSON schema of one that is given; ``of_type`` has those of types."""
        if date in self.members:
            return {"type": "string", "anyOf": [{"format": "date"}, {"format": "date-time"}]}
        if timedelta in self.members:
            return {"type": "number", "exclusiveMinimum": 0, "maximum": LONGEST_DURATION.total_seconds()}
        if self.members == _USER:
            return {"type": "string", "minLength": 1, "maxLength": LONGEST_TEXT}
        return of_type[self.kind]


class Asked(msgspec.Struct, frozen=True):
    """A question as a request asks it."""

    arguments: dict[str, Any]
    """Only those that were given."""
    format: Format


class Parameters:
    """All parameters of a question."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.known = {
            parameter.name: parameter
            for one in question.signature.parameters.values()
            for parameter in [
                Parameter(
                    one.name,
                    one.annotation,
                    one.default,
                    in_path=f"{{{one.name}}}" in question.path,
                )
            ]
        }
        self._names = ", ".join([name for name, one in self.known.items() if not one.in_path] + ["format"])

    def read(self, query: bytes, path: Mapping[str, str], body: bytes | None = None) -> Asked:
        """Return what a request asks; with a ``body`` of JSON, which has the parameters then.

        Raises `Refusal` for an unknown, a doubled or a wrong parameter.
        """
        given = _parse(query)
        formats = given.pop("format", ["json"])
        if len(formats) > 1 or formats[0] not in FORMATS:
            raise wrong("format", f"must be one of {', '.join(FORMATS)}")
        arguments: dict[str, Any] = {}
        for name, texts in given.items():
            if body is not None:
                raise wrong(_said(name), "belongs into the body: only format stands in the URL")
            parameter = self._find(name)
            arguments[parameter.argument] = parameter.read(texts)
        for name, value in ({} if body is None else _object(body)).items():
            parameter = self._find(name)
            arguments[parameter.argument] = parameter.convert(value)
        for name, text in path.items():
            arguments[self.known[name].argument] = self.known[name].read([text])
        try:
            arguments = self.question.checked(arguments)
        except InvalidQuery as error:
            raise refusal(error) from None
        for one in self.known.values():
            if one.is_required and one.argument not in arguments:
                raise wrong(one.name, "is missing")
        format_: Format = formats[0]
        return Asked(arguments, format_)

    def _find(self, name: str) -> Parameter:
        parameter = self.known.get(name)
        if parameter is None and name == "environment":
            raise _ENVIRONMENT
        if parameter is None or parameter.in_path:
            raise wrong(_said(name), f"is not known: use {self._names}")
        return parameter

    @property
    def limit(self) -> int | None:
        """The greatest ``limit``, None for a question without one."""
        parameter = self.known.get("limit")
        limits = [] if parameter is None else [one for one in get_args(parameter.kind) if isinstance(one, msgspec.Meta)]
        return int(limits[0].le) if limits and limits[0].le is not None else None


def refuse_long(path: bytes, query: bytes) -> None:
    """Raise `Refusal` for a URL that is too long to be looked at."""
    if len(path) + len(query) > MOST_BYTES:
        raise Refusal(414, "uri_too_long", f"the path and the parameters have more than {MOST_BYTES} bytes")


def _parse(query: bytes) -> dict[str, list[str]]:
    if query.count(b"&") >= MOST_PARAMETERS:
        raise wrong(None, f"there are more than {MOST_PARAMETERS} parameters")
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError:  # a UnicodeError is one too
        raise wrong(None, "the parameters must be UTF-8, percent-encoded") from None
    given: dict[str, list[str]] = {}
    for name, text in pairs:
        given.setdefault(name, []).append(text)
    return given


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(body)
    except (ValueError, RecursionError):  # a DecodeError of msgspec and a UnicodeError are ones too
        found = None
    if not isinstance(found, dict):
        raise wrong(None, "the body must be an object of JSON with the parameters")
    return found


def _said(name: str) -> str | None:
    """Return a name that is not known for a message, which repeats only what looks like one."""
    return name if _NAME.fullmatch(name) else None


def _members(kind: Any) -> Sequence[Any]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _bare(kind: Any) -> Any:
    """Return a type without its limits."""
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _read(text: str, members: frozenset[Any]) -> Any:
    """Return the value of a text, or the text itself, which the question will refuse, if it is none."""
    if date in members:
        return _moment(text)
    kinds = {_bare(member) for member in members}
    if kinds == {int} and _INTEGER.fullmatch(text):
        return int(text)
    if kinds == {float} and _NUMBER.fullmatch(text):
        return float(text)
    if kinds == {bool} and text in ("true", "false"):
        return text == "true"
    if (Step in kinds or any(get_origin(kind) is dict for kind in kinds)) and text.startswith("{"):
        try:
            return msgspec.json.decode(text)
        except (ValueError, RecursionError):
            return text
    return text


def _moment(text: str) -> date | str:
    try:
        return date.fromisoformat(text) if _DATE.fullmatch(text) else msgspec.convert(text, datetime)
    except ValueError:  # a ValidationError of msgspec is one too
        return text
