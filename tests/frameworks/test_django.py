"""The contract on Django under ASGI, and what is Django's own: includes, regular expressions, its user."""

from __future__ import annotations

import asyncio
import logging
import types
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid5

import django
import pytest
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import override_settings
from django.urls import clear_url_caches, include, path, re_path

from asgi_analytics import AnalyticsMiddleware
from asgi_analytics.events import USER_NAMESPACE
from tests.frameworks.contract import (
    PAGE,
    FrameworkContract,
    fill_cart,
    raise_heavy,
    raise_unforeseen,
    report,
    say_who,
)
from tests.instrumentation.asgi_app import http_scope, run

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"], SECRET_KEY="tests", ROOT_URLCONF="none", LOGGING_CONFIG=None, INSTALLED_APPS=[]
    )
    django.setup()


class TestDjango(FrameworkContract):
    has_lifespan = False
    urls: Any

    @pytest.fixture(autouse=True)
    def _urls(self) -> Iterator[None]:
        logging.getLogger("django.request").disabled = True  # its records would keep the exceptions
        self.urls = types.ModuleType("urls")
        self.urls.urlpatterns = []
        with override_settings(ROOT_URLCONF=self.urls):
            clear_url_caches()
            yield
        clear_url_caches()

    def application(self, *routes: tuple[str, str]) -> Any:
        self.urls.urlpatterns[:] = [path(self.template(route)[1:], getattr(self, name)) for route, name in routes]
        clear_url_caches()
        return get_asgi_application()

    def template(self, path: str) -> str:
        return path.replace("{", "<").replace("}", ">")

    async def hello(self, request: HttpRequest, item: str = "") -> HttpResponse:
        return HttpResponse("hello", "text/plain") if request.method == "GET" else HttpResponse(status=405)

    async def page(self, request: HttpRequest, item: str) -> HttpResponse:
        fill_cart(self.client)
        return HttpResponse(PAGE)

    async def not_found(self, request: HttpRequest, item: str) -> HttpResponse:
        raise Http404

    async def refused(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(status=503)

    async def boom(self, request: HttpRequest) -> HttpResponse:
        raise_unforeseen()
        raise AssertionError

    def heavy(self, request: HttpRequest) -> HttpResponse:
        raise_heavy()
        raise AssertionError

    async def reported(self, request: HttpRequest) -> HttpResponse:
        report(self.client)
        return HttpResponse("hello")

    async def me(self, request: HttpRequest) -> HttpResponse:
        say_who(self.client, "alice", "s-1")
        return HttpResponse("hello")

    async def who(self, request: HttpRequest, name: str) -> HttpResponse:
        await asyncio.sleep(0)
        say_who(self.client, name)
        await asyncio.sleep(0)
        return HttpResponse("hello")

    def thread(self, request: HttpRequest) -> HttpResponse:
        say_who(self.client, "bob")
        return HttpResponse("hello")

    async def stream(self, request: HttpRequest) -> StreamingHttpResponse:
        async def parts() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield b"0123456789"
                await asyncio.sleep(0.006)

        return StreamingHttpResponse(parts())

    async def test_includes_and_regular_expressions_are_as_django_writes_them(self) -> None:
        def page(request: HttpRequest, **_: Any) -> HttpResponse:
            return HttpResponse("page")

        inner = [path("items/<int:item>/", page), re_path(r"^years/(?P<year>[0-9]{4})/$", page)]
        app = AnalyticsMiddleware(self.application(), client=self.client)
        self.urls.urlpatterns[:] = [path("shops/<slug:shop>/", include(inner))]
        clear_url_caches()
        for url in ("/shops/a/items/1/", "/shops/a/years/2026/", "/shops/a/items/x/"):
            await self.get(app, url)

        assert [event.data["endpoint"] for event in self.analytics.of("api_request")] == [
            "/shops/<slug:shop>/items/<int:item>/",
            "/shops/<slug:shop>/years/(?P<year>[0-9]{4})/$",
            None,
        ]

    async def test_the_user_that_the_application_has_asked_for(self) -> None:
        class User:
            pk = 7
            is_authenticated = True

        def page(request: HttpRequest) -> HttpResponse:
            request._cached_user = User()  # as django.contrib.auth leaves it
            return HttpResponse("page")

        app = AnalyticsMiddleware(self.application(), client=self.client)
        self.urls.urlpatterns[:] = [path("", page)]
        clear_url_caches()
        await self.get(app, "/")

        assert self.request().user_id == uuid5(USER_NAMESPACE, "7")

    @pytest.mark.newest  # Django listens for that from 5.0 on
    async def test_a_client_that_leaves(self) -> None:
        async def slow(request: HttpRequest) -> HttpResponse:
            await asyncio.sleep(10)
            return HttpResponse("late")

        app = AnalyticsMiddleware(self.application(), client=self.client)
        self.urls.urlpatterns[:] = [path("slow/", slow)]
        clear_url_caches()
        incoming = [{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}]
        await run(app, http_scope("/slow/"), incoming)

        data = self.request().data
        assert (data["status_code"], data["outcome"], data["endpoint"]) == (499, "disconnected", "/slow/")
