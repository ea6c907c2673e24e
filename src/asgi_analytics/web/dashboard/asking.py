"""How a page asks: the questions of the API, with the range and the filters of the view."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

import msgspec

from asgi_analytics.errors import InvalidQuery, NoConnection, NotMigrated, QueryTimeout, ReadError
from asgi_analytics.reading import QUESTIONS, Meta
from asgi_analytics.web.api.endpoints import QuestionEndpoint
from asgi_analytics.web.api.parameters import Asked
from asgi_analytics.web.api.refusals import Refusal, refusal
from asgi_analytics.web.dashboard.panels import Note, Panel
from asgi_analytics.web.dashboard.view import View, url_of

RAW = "raw rows"
"""What a message says when a question needs events that are no longer kept."""


class Told(msgspec.Struct, frozen=True):
    """An answer, and what it is about."""

    results: Any
    says: str
    csv: str
    """The URL of its rows as CSV."""


class Content(msgspec.Struct, frozen=True):
    """The content of an answer that is not bare."""

    results: msgspec.Raw
    meta: Meta


class Page:
    """One request for a page: what is looked at, and how to ask about it."""

    def __init__(self, view: View, endpoints: dict[str, QuestionEndpoint], *, may_change: bool, asks_token: bool):
        self.view = view
        self.endpoints = endpoints
        self.may_change = may_change
        self.asks_token = asks_token
        """Whether a form that changes something has to ask for a token."""

    async def ask(self, name: str, /, **arguments: Any) -> Told:
        """Return the answer to a question about what is looked at. Raises `ReadError`, and `Refusal` when too many ask.

        It goes the way of the API, which asks equal questions once, and keeps answers for a moment.
        """
        endpoint, question = self.endpoints[name], QUESTIONS[name]
        given = self.view.arguments(question) | {key: one for key, one in arguments.items() if one is not None}
        answer = await endpoint.answer(Asked(question.checked(given), "json"))
        content = b"".join([piece async for piece in answer.pieces()])
        kind = question.types["return"]
        if question.bare:
            results = msgspec.json.decode(content, type=kind)
        else:
            results = msgspec.json.decode(msgspec.json.decode(content, type=Content).results, type=kind)
        says = question.definition
        if self.view.text("environment") and "environment" not in question.types:
            says += " Of all environments: aggregates do not tell them apart."
        return Told(results, says, self.csv(name, given))

    def csv(self, name: str, given: dict[str, Any]) -> str:
        """Return the URL that gives the rows of a question as CSV."""
        question = QUESTIONS[name]
        if question.method != "GET":
            return ""
        names = {one.argument: one.name for one in self.endpoints[name].parameters.known.values()}
        path = question.path
        pairs: dict[str, Any] = {}
        for argument, value in given.items():
            if argument in ("limit", "cursor"):
                continue
            text = [_text(one) for one in value] if isinstance(value, list | tuple) else _text(value)
            if f"{{{argument}}}" in path:
                path = path.replace(f"{{{argument}}}", quote(str(text), safe=""))
            else:
                pairs[names[argument]] = text
        return url_of(f"data{path}", {**pairs, "format": "csv"})


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, msgspec.Struct):
        return msgspec.json.encode(value).decode()
    return str(value)


class Part(msgspec.Struct, frozen=True):
    """A part of a page that is asked for while the others are."""

    title: str
    made: Coroutine[Any, Any, Panel | Sequence[Panel] | None]
    is_half: bool = False

    def is_wanted(self, title: str) -> bool:
        """Tell whether this is the part of that title; if it is not, it is never asked for."""
        if self.title != title:
            self.made.close()
        return self.title == title


class Away(Exception):
    """Nothing can be answered: the database is away, or not migrated."""

    def __init__(self, title: str, text: str) -> None:
        super().__init__(title)
        self.title = title
        self.text = text


async def gather(parts: Sequence[Part]) -> list[Panel]:
    """Return all panels. What cannot be answered is a note in its place. Raises `Away` if nothing can be."""
    found = await asyncio.gather(*(part.made for part in parts), return_exceptions=True)
    panels: list[Panel] = []
    for part, result in zip(parts, found, strict=True):
        if result is None:
            continue
        if isinstance(result, BaseException):
            panels.append(_problem(part, result))
        elif isinstance(result, Panel):
            panels.append(result)
        else:
            panels += result
    return panels


def _problem(part: Part, error: BaseException) -> Note:
    if isinstance(error, NoConnection):
        refusal(error)  # logs it
        text = "Start the server, or correct the database URL of this service; the log says what was tried."
        raise Away("The database cannot be reached", text) from None
    if isinstance(error, NotMigrated):
        refusal(error)
        text = "It lacks tables or views: run analytics-migrate all with the rights of their owner."
        raise Away("The database is not migrated", text) from None
    if isinstance(error, InvalidQuery):
        text = f"{error.field}: {error.expected}"
        if RAW in text:
            text += ". Choose a shorter range, or the time zone UTC."
    elif isinstance(error, QueryTimeout):
        text = "The database took too long. Choose a shorter range."
    elif isinstance(error, ReadError):
        text = refusal(error).detail
    elif isinstance(error, Refusal):
        text = "Too many questions are being asked at this moment. Load the page again."
    else:
        raise error
    return Note(title=part.title, text=text, is_error=True, is_half=part.is_half)
