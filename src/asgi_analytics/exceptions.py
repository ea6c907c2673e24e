"""What is said of an exception: what it was and where it came from, once, and nothing that keeps it alive."""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from asgi_analytics.events.captured import ApplicationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asgi_analytics.context import RequestContext

MAX_MESSAGE = 1_000
"""Characters of a message that are kept; its end says what a long one is about as little as its middle."""

MAX_FRAMES = 100
"""Frames of one exception that are kept: the innermost half and the outermost half of a deeper stack."""

MAX_RELATED = 10
"""Causes and group members that are described beside the exception itself."""

_OWN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "")  # this package's files
_LIBRARY_PARTS = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_STDLIB = tuple({os.path.join(path, "") for name in ("stdlib", "platstdlib") if (path := sysconfig.get_path(name))})


_MARK = "__asgi_analytics__"


class _Frame(NamedTuple):
    file: str
    line: int
    function: str
    qualified: str
    is_library: bool


def unwrapped(exc: BaseException) -> BaseException:
    """Return the exception itself where task groups have only wrapped it, each in a group of its own."""
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc


def leaves(exc: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions of a group, those of its groups included; an exception that is none yields itself."""
    if isinstance(exc, BaseExceptionGroup):
        for member in exc.exceptions:
            yield from leaves(member)
    else:
        yield exc


def is_first_report(exc: BaseException, reporter: object, request: RequestContext | None) -> bool:
    """Remember an exception that is reported; False if it, or all that it groups, was reported before.

    A request remembers what was reported in it: an exception object that a module raises again and again is reported
    once per request. Outside of a running request the exception itself bears the mark of the reporter.
    """
    is_first = False
    for one in {id(one): one for one in (exc, *leaves(exc))}.values():
        if request is not None and request.is_running:
            is_unknown = request.is_first_report(one)
        else:
            marks: set[int] = one.__dict__.setdefault(_MARK, set())
            is_unknown = id(reporter) not in marks
            marks.add(id(reporter))
        is_first = is_first or (is_unknown and not isinstance(one, BaseExceptionGroup))
    return is_first


def error_type(exc: BaseException) -> str:
    """Return ``ValueError`` for a builtin, else ``module.QualName``."""
    cls = type(exc)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def describe(
    exc: BaseException, *, handled: bool, endpoint: str | None = None, context: dict[str, Any] | None = None
) -> ApplicationError:
    """Return the event for an exception.

    ``stack`` holds the frames as ``{file, line, function}``: innermost first, those of the exception before those of
    its causes, the application's before the libraries'. Files are relative to their ``sys.path`` entry, so that they
    are the same on every machine. The fingerprint is made of the types and of the application's functions (the
    libraries' where there are none): lines and messages may change. Causes and the members of a group stand under
    ``causes`` and ``exceptions`` in the context.
    """
    exc = unwrapped(exc)
    causes = list(_causes(exc))
    members = list(leaves(exc))[:MAX_RELATED] if isinstance(exc, BaseExceptionGroup) else []
    frames = [frame for one in (exc, *members, *causes) for frame in _frames(one)]
    frames = [f for f in frames if not f.is_library] + [f for f in frames if f.is_library]
    if members or causes:
        context = dict(context or {})
        for name, related in (("exceptions", members), ("causes", causes)):
            if related:
                described = [{"error_type": error_type(one), "error_message": _message(one)} for one in related]
                context.setdefault(name, described)
    return ApplicationError(
        error_type=error_type(exc),
        error_message=_message(exc),
        fingerprint=_fingerprint(exc, members),
        endpoint=endpoint,
        handled=handled,
        # The handler's frames stand in an exception's traceback and in its cause's: once is enough.
        stack=[{"file": f.file, "line": f.line, "function": f.function} for f in dict.fromkeys(frames)],
        context=context,
    )


def _message(exc: BaseException) -> str:
    try:
        text = str(exc)
    except Exception as error:
        return f"<its message cannot be read: {type(error).__name__}>"
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """Yield what an exception was raised from, or while handling, in that order."""
    seen = {id(exc)}
    for _ in range(MAX_RELATED):
        cause = exc.__cause__ if exc.__cause__ is not None or exc.__suppress_context__ else exc.__context__
        if cause is None or id(cause) in seen:
            return
        exc = unwrapped(cause)
        seen.add(id(exc))
        yield exc


def _frames(exc: BaseException) -> list[_Frame]:
    """Return the frames of a traceback, innermost first, without our own; no frame object is kept."""
    frames: list[_Frame] = []
    step = exc.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        if not code.co_filename.startswith(_OWN):
            file, is_library = _place(code.co_filename)
            frames.append(_Frame(file, step.tb_lineno, code.co_name, code.co_qualname, is_library))
        step = step.tb_next
    frames.reverse()
    if len(frames) > MAX_FRAMES:
        frames = frames[: MAX_FRAMES // 2] + frames[-MAX_FRAMES // 2 :]
    return frames


@lru_cache(maxsize=2048)
def _place(filename: str) -> tuple[str, bool]:
    """Return a file's name relative to its ``sys.path`` entry, and whether it belongs to a library."""
    if filename.startswith("<"):
        return filename, filename.startswith("<frozen ")
    path = os.path.abspath(filename)
    is_library = any(part in path for part in _LIBRARY_PARTS) or path.startswith(_STDLIB)
    roots = [os.path.join(os.path.abspath(entry), "") for entry in sys.path]
    root = max((root for root in roots if path.startswith(root)), key=len, default="")
    return path[len(root) :].replace(os.sep, "/"), is_library


def _fingerprint(exc: BaseException, members: list[BaseException]) -> str:
    parts = [error_type(exc), *sorted({error_type(member) for member in members})]
    frames = _frames(exc)
    for member in members:
        frames += _frames(member)
    ours = [frame for frame in frames if not frame.is_library] or frames
    # Each function once: how deep a recursion went, or how often a loop called, is no other error.
    parts += dict.fromkeys(f"{frame.file}:{frame.qualified}" for frame in ours)
    if exc.__cause__ is not None:
        parts.append(error_type(exc.__cause__))
    return hashlib.blake2b("\n".join(parts).encode("utf-8", "replace"), digest_size=16).hexdigest()
