"""Events without a class: a name and its properties, as one says them where they happen."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, get_args

import msgspec

from asgi_analytics.errors import ConfigError
from asgi_analytics.events.base import Category, Event, UserId
from asgi_analytics.traffic import arrival, host_of, path_of, query_of

__all__ = ["NamedEvent", "identify", "page", "track"]

MAX_NAME = 100
"""Characters of a name."""

PAGE_VIEW = "page_view"
USER_IDENTIFIED = "user_identified"
PAGE_ENGAGED = "page_engaged"
LINK_CLICKED = "outbound_link_clicked"
NAMED = frozenset({PAGE_VIEW, PAGE_ENGAGED, LINK_CLICKED, USER_IDENTIFIED})
"""Types that the package itself makes without a class."""

_is_tag = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*").fullmatch
_is_dotted = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z0-9][a-z0-9_]*)+").fullmatch


class NamedEvent(Event, registered=False):
    """An event without a class, as `track`, `page` and `identify` make it.

    ``properties`` are what is stored as its ``data``. A ``before_track`` may return a changed copy:
    ``msgspec.structs.replace(event, properties=…)``.
    """

    event_type: str
    user_id: UserId | None = None
    session_id: str | None = None
    properties: dict[str, Any] = msgspec.field(default_factory=dict)


def track(name: str, /, **properties: Any) -> NamedEvent:
    """Return an event without a class: ``client.track(events.track("cart_filled", items=3))``.

    The name is in snake_case and in the past tense; a dotted one, ``cart.filled``, is taken for the tag
    ``cart_filled``. ``user_id`` and ``session_id`` among the properties become those of the event. Fields that are
    `Personal` in a class of that tag are stored hashed here too. Raises `ConfigError` for a name in another form.
    """
    return _named(tag_of(name), properties)


def page(url: str, *, referrer: str | None = None, title: str | None = None, **properties: Any) -> NamedEvent:
    """Return a ``page_view`` of a page that the application shows without a request of its own.

    ``url`` is a URL or a path. Stored are its ``page`` (the path; name the route by ``page="/tasks/{id}"``), the
    ``url`` without query and fragment, the host of the ``referrer`` unless it is that of ``url``, the ``channel`` and
    the ``utm_…`` fields of the query. Nothing else of the query is stored. The properties are as for `track`.
    """
    path = path_of(url)
    own_host = host_of(url)
    found = arrival(query_of(url), referrer, own_host)
    data = {
        "page": path,
        "url": path if own_host is None else f"{url.partition('://')[0]}://{own_host}{path}",
        "title": title,
        "referrer": found.referrer,
        "channel": found.channel,
        **found.utm,
    }
    return _named(PAGE_VIEW, {name: value for name, value in data.items() if value is not None} | properties)


def identify(user_id: UserId, **traits: Any) -> NamedEvent:
    """Return a ``user_identified``: what is known of a user, such as ``plan="pro"``.

    The traits are kept in the table ``analytics_user_traits``, the newest of each key; ``role`` and ``registered_at``
    are columns there. A trait that is not named keeps its value, one that is None becomes null.
    """
    return _named(USER_IDENTIFIED, traits, user_id)


def tag_of(name: str) -> str:
    """Return the tag that a name stands for; raises `ConfigError` where it is no name of an event."""
    if isinstance(name, str):
        tag = dotted_tag(name) or name
        if len(tag) <= MAX_NAME and _is_tag(tag):
            return tag
        if 0 < len(name) <= MAX_NAME:
            raise ConfigError(f"{name!r} is not the name of an event: use snake_case, as in 'cart_filled'")
    raise ConfigError(f"the name of an event is a str of at most {MAX_NAME} characters, as in 'cart_filled'")


def dotted_tag(name: str) -> str | None:
    """Return the tag that a dotted name stands for, ``project_created`` for ``project.created``; else None."""
    return name.replace(".", "_") if _is_dotted(name) else None


def write_categories(categories: Mapping[str, str], most: int) -> list[str]:
    """Return texts of at most so many characters that `read_categories` reads; types with other names are left out."""
    texts: list[str] = []
    for name, category in sorted(categories.items()):
        if _is_tag(name) and len(name) <= MAX_NAME:
            one = f"{name}={category}"
            if texts and len(texts[-1]) + 2 + len(one) <= most:
                texts[-1] += f", {one}"
            else:
                texts.append(one)
    return texts


def read_categories(text: str) -> dict[str, str]:
    """Return the category of each type in a text such as ``order_paid=transaction``; what is not understood is left."""
    pairs = [part.strip().partition("=") for part in text.split(",")]
    return {
        name: category
        for name, _, category in pairs
        if category in get_args(Category) and len(name) <= MAX_NAME and _is_tag(name)
    }


def _named(tag: str, properties: dict[str, Any], user_id: UserId | None = None) -> NamedEvent:
    session_id = properties.pop("session_id", None)
    if user_id is None:
        user_id = properties.pop("user_id", None)
    return NamedEvent(event_type=tag, user_id=user_id, session_id=session_id, properties=properties)
