"""Find the template of the route that a request took through a tree of routers, without walking the tree again.

The tree is Starlette's: routers have ``routes``; a route has a ``path_format`` and an ``endpoint``, a mount has a
``path_regex`` and an ``app``. A table of the whole tree is made once, and each endpoint is looked up in it. What the
table says is checked against the request. The table is made again when routes have been added.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from asgi_analytics.instrumentation.requests.framework import Template
from asgi_analytics.log import failure, log_problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from asgi_analytics.instrumentation.types import Scope

_MOUNT_TAIL = "/{path}"
_MOUNT_REGEX_TAIL = "/(?P<path>.*)$"
_GROUP_NAME = re.compile(r"\(\?P<\w+>")
_DEEPEST = 20
_MOST_UNKNOWN = 256


class _Leaf:
    """One place in the tree where a request may end."""

    __slots__ = ("depth", "mounts", "route", "template")

    def __init__(self, template: Template | None, mounts: str, depth: int, route: Any) -> None:
        self.template = template
        # The concrete path that the mounts above have consumed must look like this; empty without any.
        self.mounts = re.compile(mounts) if mounts else None
        self.depth = depth
        self.route = route

    def fits(self, mounted: str) -> bool:
        return not mounted if self.mounts is None else self.mounts.fullmatch(mounted) is not None


class RouteTable:
    """The templates of one tree of routers, by what a router leaves in the scope when it has matched."""

    def __init__(self, root: Any) -> None:
        self.root = root
        # Objects are looked up by their identity, since routes cannot be hashed; each stands beside its id, so that
        # no other object can take its place.
        self._leaves: dict[int, tuple[object, list[_Leaf]]] = {}
        # Each list of routes in the tree, and what was in it.
        self._lists: list[tuple[list[Any], list[Any]]] = []
        self._open_mounts: list[_Leaf] = []
        # The concrete path that mounts of routers consume, and their prefix.
        self._prefixes: list[tuple[re.Pattern[str], str]] = []
        self._unknown: dict[int, object] = {}
        self._build()

    def find(self, scope: Scope) -> Template | None:
        """Return the template of the route that a request took; None if it took none."""
        included = scope.get("fastapi")
        lone = self._lone.get(id(scope.get("route")))
        if lone is not None and "app_root_path" not in scope and included is None:
            return lone
        if included is not None and (frontend_path := included.get("frontend_path")) is not None:
            return self._frontend(scope, frontend_path)
        endpoint = scope.get("endpoint")
        if endpoint is None:
            return None
        subject = _subject(scope, endpoint)
        known = self._leaves.get(id(subject))
        if known is not None:
            leaf = _choose(known[1], scope, subject is endpoint)
            if leaf is not None:
                return leaf.template
        return self._find_again(scope, subject, endpoint)

    def _find_again(self, scope: Scope, subject: object, endpoint: object) -> Template | None:
        """Look at the tree once more, if it may have changed; else say what is known."""
        is_new = id(subject) not in self._leaves and id(subject) not in self._unknown
        if self._has_changed() or (is_new and len(self._unknown) < _MOST_UNKNOWN):
            self._build()
        known = self._leaves.get(id(subject))
        if known is None:
            self._unknown[id(subject)] = subject
            return self._below_a_mount(scope, subject)
        leaf = _choose(known[1], scope, subject is endpoint)
        if leaf is None and len(known[1]) == 1:
            leaf = known[1][0]  # its root_path is a strange one, but it can be nowhere else
        return None if leaf is None else leaf.template

    def _below_a_mount(self, scope: Scope, subject: object) -> Template | None:
        """Return the template of a route that the tree does not show: below a mount that hides its routes, mostly."""
        mounted = _mounted(scope)
        path_format = getattr(subject, "path_format", None)
        if not mounted:
            return None if path_format is None else Template(path_format)
        for leaf in self._open_mounts:
            if leaf.template is not None and leaf.mounts is not None and (match := leaf.mounts.match(mounted)):
                if match.end() == len(mounted) and path_format is not None:
                    return Template(f"{leaf.template.prefix}{path_format}")
                return leaf.template
        return None

    def _frontend(self, scope: Scope, frontend_path: str) -> Template | None:
        """Return the template of a directory that FastAPI's ``frontend()`` serves; its route has no endpoint.

        Such a route has no parameters: what stands before the file's path is the template.
        """
        mounted = _mounted(scope)
        template = _path_below(scope).removesuffix(frontend_path).rstrip("/") + _MOUNT_TAIL
        if not mounted:
            return Template(template)
        return next(
            (Template(prefix + template) for mounts, prefix in self._prefixes if mounts.fullmatch(mounted)), None
        )

    def _has_changed(self) -> bool:
        return any(routes != before for routes, before in self._lists)

    def _build(self) -> None:
        self._leaves, self._lists, self._open_mounts, self._prefixes = {}, [], [], []
        self._visit_all(self.root.routes, "", "", 0)
        # Routes that are in one place only, not below a mount: none of them has another template while it lives.
        self._lone = {
            id(leaf.route): leaf.template
            for route, [leaf, *others] in self._leaves.values()
            if not others and leaf.route is route and leaf.mounts is None and hasattr(route, "endpoint")
        }

    def _visit_all(self, routes: Iterable[Any], prefix: str, mounts: str, depth: int) -> None:
        if depth > _DEEPEST:
            return
        if isinstance(routes, list):
            self._lists.append((routes, list(routes)))
        for route in list(routes):
            try:
                self._visit_either(route, prefix, mounts, depth)
            except Exception as error:  # the other routes are known all the same
                log_problem(("route", type(route)), "the endpoint of a route is not known: %s", failure(error))

    def _visit_either(self, route: Any, prefix: str, mounts: str, depth: int) -> None:
        """Visit a route, or each of those that FastAPI includes by reference: its contexts, with all their prefixes."""
        if (contexts := getattr(route, "effective_route_contexts", None)) is None:
            self._visit(route, (route,), prefix, mounts, depth)
            return
        for included in _included_lists(route):
            self._lists.append((included, list(included)))
        for context in contexts():
            effective = getattr(context, "starlette_route", None) or context
            self._visit(effective, (context, effective), prefix, mounts, depth)

    def _visit(self, route: Any, names: tuple[object, ...], prefix: str, mounts: str, depth: int) -> None:
        path_format: Any = getattr(route, "path_format", None)
        is_host = hasattr(route, "host_format")
        if not is_host and not isinstance(path_format, str):
            return
        if not is_host and not hasattr(route, "routes"):
            leaf = _Leaf(Template(prefix + path_format), mounts, depth, route)
            self._add((*names, getattr(route, "endpoint", None)), leaf)
            return
        if not is_host:
            prefix += path_format.removesuffix(_MOUNT_TAIL)
            pattern = route.path_regex.pattern.removeprefix("^").removesuffix(_MOUNT_REGEX_TAIL)
            mounts += _GROUP_NAME.sub("(?:", pattern)
        below = _routes_of(route)
        if below is None:
            leaf = _Leaf(Template(prefix + _MOUNT_TAIL, prefix), mounts, depth, route)
            self._open_mounts.append(leaf)
        else:
            leaf = _Leaf(None, mounts, depth, route)  # a router that was reached and has found nothing
            if leaf.mounts is not None:
                self._prefixes.append((leaf.mounts, prefix))
            self._visit_all(below, prefix, mounts, depth + 1)
        self._add((*names, route.app), leaf)

    def _add(self, names: Iterable[object], leaf: _Leaf) -> None:
        for name in names:
            if name is not None:
                self._leaves.setdefault(id(name), (name, []))[1].append(leaf)


def _subject(scope: Scope, endpoint: object) -> object:
    """Return what names the route best: FastAPI's context, the route, or only the endpoint.

    The first two may be left over from a router further out, which is seen by the endpoint.
    """
    route = scope.get("route")
    included = scope.get("fastapi")
    if included is not None:
        context = included.get("effective_route_context")
        if context is not None and _endpoint_of(getattr(context, "starlette_route", None) or context) is endpoint:
            return context
    return route if route is not None and _endpoint_of(route) is endpoint else endpoint


def _endpoint_of(route: Any) -> object:
    endpoint = getattr(route, "endpoint", None)
    return getattr(route, "app", None) if endpoint is None else endpoint


def _mounted(scope: Scope) -> str:
    """Return the part of the path that mounts have consumed."""
    outer = scope.get("app_root_path")
    if outer is None:
        return ""
    root_path: str = scope.get("root_path", "")
    return root_path[len(outer) :]


def _choose(leaves: list[_Leaf], scope: Scope, by_endpoint: bool) -> _Leaf | None:
    """Return the leaf that the request has reached: the mounts above must have consumed what was consumed."""
    if "app_root_path" in scope:
        mounted = _mounted(scope)
        fitting = [leaf for leaf in leaves if leaf.fits(mounted)]
    else:
        fitting = leaves if len(leaves) == 1 and leaves[0].mounts is None else [x for x in leaves if x.mounts is None]
    if len(fitting) == 1 and not by_endpoint:
        return fitting[0]
    # Several places, or one that may not be the only one: which of them matches?
    return next((leaf for leaf in fitting if _matches(leaf, scope)), None)


def _matches(leaf: _Leaf, scope: Scope) -> bool:
    if hasattr(leaf.route, "app") and not hasattr(leaf.route, "endpoint"):
        return True  # a mount or a host, whose part of the path was looked at already
    regex = getattr(leaf.route, "path_regex", None)
    if regex is None:
        return True
    return regex.match(_path_below(scope)) is not None


def _path_below(scope: Scope) -> str:
    """Return the part of the path that is left to the innermost router."""
    path: str = scope["path"]
    root_path: str = scope.get("root_path") or ""
    return path[len(root_path) :] if root_path and path.startswith(root_path) else path


def is_route(app: object) -> bool:
    """Tell whether an ASGI application is a single route, a mount or a host: each can stand without a router."""
    return hasattr(app, "matches") and hasattr(app, "handle") and hasattr(app, "url_path_for")


def _routes_of(mount: Any) -> Iterable[Any] | None:
    """Return the routes below a mount or a host, through the middleware around them; None if it shows none."""
    app = mount.app
    for _ in range(_DEEPEST):
        if app is None:
            break
        if (routes := _routes_in(app)) is not None:
            return routes
        app = getattr(app, "app", None)
    return _routes_in(getattr(mount, "_base_app", None))  # what the mount's own middleware stands around


def _routes_in(app: Any) -> Iterable[Any] | None:
    if is_route(app) and not hasattr(app, "redirect_slashes"):  # FastAPI's routers can be matched as well
        return [app]
    if not hasattr(app, "url_path_for"):
        return None
    routes: Iterable[Any] | None = getattr(app, "routes", None)
    return routes


def _included_lists(route: Any) -> Iterator[list[Any]]:
    """Yield the lists of routes behind an included router of FastAPI, nested ones too."""
    router = getattr(route, "original_router", None)
    routes = getattr(router, "routes", None)
    if isinstance(routes, list):
        yield routes
        for nested in routes:
            if hasattr(nested, "original_router"):
                yield from _included_lists(nested)
