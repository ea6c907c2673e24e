"""The contract on Django under ASGI, and what is Django's own: includes, regular expressions, its user."""

from __future__ import annotations

import asyncio
import logging
import types
from collections.abc import AsyncIterator, Iterator
from typing import Any

import django
import pytest
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import override_settings
from django.urls import clear_url_caches, path

from tests.frameworks.contract import FrameworkContract, raise_heavy, raise_unforeseen, report, say_who

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"], SECRET_KEY="tests", ROOT_URLCONF="none", LOGGING_CONFIG=None, INSTALLED_APPS=[]
    )
    django.setup()


class TestDjango(FrameworkContract):
    has_lifespan = False

    @pytest.fixture(autouse=True)
    def _urls(self) -> Iterator[None]:
        logging.getLogger("django.request").disabled = True  # its records would keep the exceptions
        self.urls = types.ModuleType("urls")
        self.urls.urlpatterns = []  # type: ignore[attr-defined]
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
        return HttpResponse("hello") if request.method == "GET" else HttpResponse(status=405)

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
