"""The methods of a driver that are replaced, and put back, whatever other tools replace before, after or in between.

A tool that wraps methods with wrapt, as OpenTelemetry does, stays outermost: a method is replaced below its wrappers.
So each finds its own where it left it, in whichever order they are taken away.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
import warnings
from types import FunctionType
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import wrapt

from asgi_analytics.context import suppressed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextvars import ContextVar
    from types import ModuleType

    from asgi_analytics.instrumentation.queries.recorder import QueryRecorder

    Target = tuple[Any, str, Callable[[Any], Any]]
    """An owner, the name of its method, and what makes the replacement of the original; None: it is not known here."""


_made_here: WeakSet[FunctionType] = WeakSet()
"""All replacements. A tool that is taken away may put one back that was taken away before: it is dead, so skip it."""


class Patches:
    """One installation: what was replaced, and where the queries go. Without a recorder, replacements only pass on."""

    recorder: QueryRecorder | None = None

    def __init__(self) -> None:
        self._replaced: list[tuple[Any, str, Any, Any]] = []

    def targets(self) -> Iterable[Target]:
        """Return what is to be replaced."""
        raise NotImplementedError  # each driver has methods of its own

    def install(self, driver: ModuleType, stacklevel: int) -> None:
        """Replace the methods, and warn of those that this version of the driver lacks."""
        for owner, name, make in self.targets():
            *_, (holder, attribute, original) = _places(owner, name)
            if type(original) is FunctionType:
                original = inspect.unwrap(original, stop=lambda function: function not in _made_here)
            replacement = _replacement(original, make)
            if replacement is None:
                warnings.warn(
                    f"{driver.__name__} {driver.__version__} has no {owner.__name__}.{name} that is known here: "
                    "the queries that go through it are not captured, or without their rows",
                    RuntimeWarning,
                    stacklevel=stacklevel + 1,
                )
                continue
            setattr(holder, attribute, replacement)
            if type(replacement) is FunctionType:
                _made_here.add(replacement)
            self._replaced.append((owner, name, original, replacement))

    def remove(self) -> None:
        """Put the originals back; a method that another tool has replaced since is left to that tool."""
        for owner, name, original, replacement in reversed(self._replaced):
            for holder, attribute, value in list(_places(owner, name)):
                if value is replacement:
                    setattr(holder, attribute, original)
        self.recorder = None


class Driver:
    """A driver whose queries a process captures once, however often it is instrumented."""

    def __init__(self, module: ModuleType, make_patches: Callable[[], Patches]) -> None:
        self._module = module
        self._make_patches = make_patches
        self._patches: Patches | None = None
        self._lock = threading.RLock()

    def instrument(self, recorder: QueryRecorder, stacklevel: int = 2) -> Instrumentation:
        """Send the driver's queries to a recorder from now on."""
        with self._lock:
            if self._patches is None:
                self._patches = self._make_patches()
                self._patches.install(self._module, stacklevel + 1)
            self._patches.recorder = recorder
            return Instrumentation(self, self._patches)

    def uninstrument(self, patches: Patches) -> None:
        """Take an installation away; nothing if that was done before."""
        with self._lock:
            if self._patches is patches:
                self._patches = None
                patches.remove()


class Instrumentation:
    """What `instrument_asyncpg` and the like return; keep it to take the capture away again."""

    def __init__(self, driver: Driver, patches: Patches) -> None:
        self._driver = driver
        self._patches = patches

    def uninstrument(self) -> None:
        """Put the driver's own objects back, whichever handle is asked; nothing the second time.

        A method that another tool has replaced since is left to that tool; the replacement below it only passes on.
        """
        self._driver.uninstrument(self._patches)


def _places(owner: Any, name: str) -> Iterator[tuple[Any, str, Any]]:
    """Yield where a method stands and what stands there: in its class, then below each of wrapt's wrappers."""
    holder, attribute, value = owner, name, vars(owner).get(name)
    yield holder, attribute, value
    while isinstance(value, wrapt.FunctionWrapper):
        holder, attribute, value = value, "__wrapped__", value.__wrapped__
        yield holder, attribute, value


def _replacement(original: Any, make: Callable[[Any], Any]) -> Any:
    if isinstance(original, classmethod):
        replacement = make(original.__func__)
        return None if replacement is None else classmethod(replacement)
    if not callable(original):
        return None
    return make(original if type(original) is FunctionType else _as_function(original))


def _as_function(descriptor: Any) -> Any:
    """Return a function that calls a method which is not a function: what binds it is for the descriptor to say."""

    @functools.wraps(descriptor)
    def function(self: Any, *args: Any, **kwargs: Any) -> Any:
        return descriptor.__get__(self, type(self))(*args, **kwargs)

    return function


def owner_of(cls: Any, name: str) -> Any:
    """Return the class among a class and its bases that defines a method; the class itself if none does."""
    return next((base for base in cls.__mro__ if name in vars(base)), cls)


@contextlib.contextmanager
def set_within(variable: ContextVar[Any], value: object) -> Iterator[None]:
    """Set a context variable for a block, which the garbage collector may end in any other context."""
    token = variable.set(value)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            variable.reset(token)


def mute(original: Any) -> Any:
    """Replace a method that asks the server on its own behalf: those are not queries of the application."""

    @functools.wraps(original)
    async def muted_coroutine(*args: Any, **kwargs: Any) -> Any:
        with set_within(suppressed, True):
            return await original(*args, **kwargs)

    @functools.wraps(original)
    def muted(*args: Any, **kwargs: Any) -> Any:
        with set_within(suppressed, True):
            return original(*args, **kwargs)

    return muted_coroutine if inspect.iscoroutinefunction(original) else muted
