"""The endpoints of the API: one for each question, the probes and the description."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from asgi_analytics.errors import ReadError
from asgi_analytics.reading import QUESTIONS
from asgi_analytics.values import KIB
from asgi_analytics.web.access import request_log
from asgi_analytics.web.api import openapi
from asgi_analytics.web.api.answers import Answer, Answers
from asgi_analytics.web.api.caller import Caller, Left
from asgi_analytics.web.api.formats import MEDIA_TYPES, Rows, ndjson
from asgi_analytics.web.api.parameters import Asked, Format, Parameters, refuse_long
from asgi_analytics.web.api.refusals import SECURITY, Refusal, refusal, wrong
from asgi_analytics.web.probes import Probes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.routing import BaseRoute
    from starlette.types import Receive, Scope, Send

    from asgi_analytics.reading import AnalyticsReader, Answered, Question
    from asgi_analytics.reading.source import Write
    from asgi_analytics.web.access import RequestLog
    from asgi_analytics.web.tokens import Tokens

PREFIX = "/api/analytics"

KEEP_ENDED, KEEP_RUNNING = 10.0, 1.0
"""Seconds that an answer is kept: one of a range that has ended, and one that reaches to now. Workers write about once
a second, and what comes late for an ended range may be shown late."""

MOST_BODY = 64 * KIB
"""Bytes of the parameters of one question."""

HEADERS = {"Cache-Control": "private, no-cache", "Vary": "Authorization", **SECURITY}


class ApiService:
    """The endpoints, and what they share."""

    def __init__(self, reader: AnalyticsReader, *, tokens: Tokens, change_tokens: Tokens, answers: Answers) -> None:
        self.reader = reader
        self.tokens = tokens
        self.change_tokens = change_tokens
        self.answers = answers
        self.probes = Probes(
            self._look, not_ready="the database cannot answer questions; the log of the service says why"
        )
        self._opening = asyncio.Lock()

    def routes(self) -> list[BaseRoute]:
        """Return all routes, each with the prefix and without."""
        # Else {fingerprint} would stand for what has a route of its own.
        questions = sorted(QUESTIONS.values(), key=lambda one: "{" in one.path)
        endpoints = [ChangeEndpoint(self, one) if one.changes else QuestionEndpoint(self, one) for one in questions]
        routes: list[BaseRoute] = []
        for prefix in ("", PREFIX):
            routes += [
                Route(f"{prefix}/health", self.probes.health, methods=["GET"]),
                Route(f"{prefix}/ready", self.probes.ready, methods=["GET"]),
                Route(f"{prefix}/openapi.json", functools.partial(self.openapi, prefix), methods=["GET"]),
                *(Route(prefix + one.question.path, one, methods=[one.question.method]) for one in endpoints),
            ]
        return routes

    async def openapi(self, prefix: str, request: Request) -> Response:
        """Answer with the description of the service."""
        request_log(request, "/openapi.json")
        server = request.scope.get("root_path", "") + prefix or "/"
        document = openapi.describe(QUESTIONS.values(), server=server, requires_token=bool(self.tokens))
        return Response(msgspec.json.encode(document), 200, HEADERS, "application/json")

    async def ask(self, question: Question, arguments: dict[str, Any], write: Write | None = None) -> Answered:
        """Return the answer of the database; with ``write``, which takes all its rows, without them."""
        await self.open()
        if write is None:
            return await self.reader.answer(question.name, **arguments)
        return await self.reader.stream(question.name, write, **arguments)

    async def change(self, question: Question, arguments: dict[str, Any]) -> Answered:
        """Change what is kept; every answer that is given from now on knows of it."""
        async with self.answers.turn():
            answered = await self.ask(question, arguments)
        self.answers.forget()
        return answered

    async def open(self) -> None:
        """Open a reader that was made from a URL; a mounted application may not have its lifespan run."""
        async with self._opening:
            await self.reader.open()

    async def aclose(self) -> None:
        """Cancel what runs, and close the connections of a reader that was made from a URL."""
        await self.answers.aclose()
        await self.reader.aclose()

    async def _look(self) -> None:
        await self.open()
        await self.reader.ready()


class QuestionEndpoint:
    """Answer one question."""

    def __init__(self, service: ApiService, question: Question) -> None:
        self.service = service
        self.question = question
        self.parameters = Parameters(question)
        self.rows = Rows(question)
        self.has_pages = "cursor" in self.parameters.known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        log = request_log(request, self.question.path)
        self.service.tokens.require(request.headers)
        asked = await _asked(request, self.parameters)
        try:
            async with Caller(receive) as caller:
                if self.has_pages and asked.format != "json" and "limit" not in asked.arguments:
                    await self._stream(scope, send, caller, asked, log)
                    return
                answer = await caller.wait(self.answer(asked))
            response = self._response(request, answer, asked.format)
            log.counts["bytes"] = answer.size
            await response(scope, receive, send)
        except ReadError as error:
            raise refusal(error) from None
        except Left:
            return  # only the log sees it

    async def answer(self, asked: Asked) -> Answer:
        """Return the answer to a question: a kept one, or that of the database. Raises `ReadError` and `Refusal`."""
        known = self.parameters.known.values()
        arguments = {one.argument: one.default for one in known if one.default is not None} | asked.arguments
        is_all = asked.format != "json" and self.rows.is_list and "limit" not in asked.arguments
        key = msgspec.json.encode([self.question.name, asked.format, is_all, sorted(arguments.items())])

        async def make() -> Answer:
            answer = Answer()

            async def write(rows: Sequence[Any]) -> None:
                # Ten thousand rows of CSV take a tenth of a second.
                await asyncio.to_thread(lambda: answer.write(self._lines(rows, asked.format)))

            if asked.format == "csv":
                answer.write(self.rows.header())
            answered = await self.service.ask(self.question, arguments, write if is_all else None)
            if asked.format == "json":
                content = answered.results if self.question.bare else answered
                answer.write(await asyncio.to_thread(msgspec.json.encode, content))
            else:
                await write(self.rows.of(answered.results))  # none, if they are written
            has_ended = answered.meta.end is not None and answered.meta.end < self.service.reader.now()
            return answer.end(KEEP_ENDED if has_ended else KEEP_RUNNING)

        return await self.service.answers.get(key, make)

    def _lines(self, rows: Sequence[Any], form: Format) -> bytes:
        return self.rows.csv(rows) if form == "csv" else ndjson(rows)

    def _headers(self, form: Format) -> dict[str, str]:
        headers = {"Content-Type": MEDIA_TYPES[form], **HEADERS}
        if form != "json":
            name = self.question.path.partition("{")[0].strip("/").replace("/", "-")
            headers["Content-Disposition"] = f'attachment; filename="{name}.{form}"'
        return headers

    def _response(self, request: Request, answer: Answer, form: Format) -> Response:
        headers = {**self._headers(form), "ETag": answer.etag}
        if request.method != "POST" and _matches(request.headers.getlist("if-none-match"), answer.etag):
            return Response(status_code=304, headers=headers)
        headers["Content-Length"] = str(answer.size)
        if request.method == "HEAD":
            return Response(headers=headers)
        return StreamingResponse(answer.pieces(), headers=headers)

    async def _stream(self, scope: Scope, send: Send, caller: Caller, asked: Asked, log: RequestLog) -> None:
        """Send all rows, page by page: only one is held, and none is read before the caller takes the one before."""
        arguments = {**asked.arguments, "limit": self.parameters.limit}
        answered = await caller.wait(self._page(arguments, patient=False))
        headers = [(name.lower().encode(), text.encode()) for name, text in self._headers(asked.format).items()]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        content = self.rows.header() if asked.format == "csv" else b""
        count = 0
        # Pages that are asked for after midnight are those of the same range.
        arguments |= {"start": answered.meta.start, "end": answered.meta.end}
        while scope["method"] != "HEAD":
            rows = self.rows.of(answered.results)
            content += self._lines(rows, asked.format)
            await send({"type": "http.response.body", "body": content, "more_body": True})
            count += len(rows)
            if not answered.results.has_more:
                break
            content = b""
            arguments["cursor"] = answered.results.next
            answered = await caller.wait(self._page(arguments, patient=True))
        log.counts["rows"] = count
        await send({"type": "http.response.body", "body": b""})

    async def _page(self, arguments: dict[str, Any], *, patient: bool) -> Answered:
        async with self.service.answers.turn(patient=patient):
            return await self.service.ask(self.question, arguments)


class ChangeEndpoint:
    """Change what is kept."""

    def __init__(self, service: ApiService, question: Question) -> None:
        self.service = service
        self.question = question
        self.parameters = Parameters(question)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        request_log(request, self.question.path)
        if not self.service.change_tokens:
            raise Refusal(403, "forbidden", "nothing can be changed here: the service has no token for it")
        self.service.change_tokens.require(request.headers)
        asked = await _asked(request, self.parameters)
        if asked.format != "json":
            raise wrong("format", "must be json")
        try:
            answered = await self.service.change(self.question, asked.arguments)
        except ReadError as error:
            raise refusal(error) from None
        response = Response(status_code=204, headers=HEADERS)
        if answered.results is not None:
            response = Response(msgspec.json.encode(answered), 201, HEADERS, "application/json")
        await response(scope, receive, send)


async def _asked(request: Request, parameters: Parameters) -> Asked:
    """Return what a request asks. Raises `Refusal`."""
    scope = request.scope
    query = scope["query_string"]
    refuse_long(scope.get("raw_path") or scope["path"].encode(), query)
    body = await _body(request) if parameters.question.method == "POST" else None
    return parameters.read(query, scope.get("path_params", {}), body)


async def _body(request: Request) -> bytes:
    parts, size = [], 0
    try:
        async for part in request.stream():
            parts.append(part)
            size += len(part)
            if size > MOST_BODY:
                raise Refusal(413, "content_too_large", f"the body has more than {MOST_BODY} bytes")
    except ClientDisconnect:
        raise wrong(None, "the body ends before its end") from None
    return b"".join(parts)


def _matches(given: list[str], etag: str) -> bool:
    """Tell whether ``If-None-Match`` names a tag."""
    tags = [tag.strip().removeprefix("W/") for line in given for tag in line.split(",")]
    return etag in tags or "*" in tags
