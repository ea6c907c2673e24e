"""Write the pages of docs/reference that are made from the code: api.md, events.md and commands.md.

Run: python docs/make_reference.py           (a test fails while a page is not what this writes)
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
import sys
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from asgi_analytics import errors, events
from asgi_analytics.config import VARIABLES, Settings
from asgi_analytics.events.base import PERSONAL, Event, event_type_of
from asgi_analytics.pipeline.stats import Stats

FOLDER = Path(__file__).parent / "reference"
SHORT = {"AnalyticsClient": "client", "Metrics": "metrics", "AnalyticsWorker": "worker", "AnalyticsReader": "reader"}
PUBLIC = {
    "asgi_analytics.AnalyticsClient": [
        "from_url", "from_environ", "track", "track_error", "flush", "aflush", "close", "aclose", "stats",
    ],
    "asgi_analytics.metrics.Metrics": ["counter", "gauge", "histogram", "timer", "timing", "record"],
    "asgi_analytics.metrics.Metric": [],
    "asgi_analytics.metrics.api_request": [],
    "asgi_analytics.metrics.active_users": [],
    "asgi_analytics.metrics.missions_created": [],
    "asgi_analytics.metrics.database_query": [],
    "asgi_analytics.otel.AnalyticsMetricExporter": [],
    "asgi_analytics.admin.retention.retention": [],
    "asgi_analytics.admin.schemas.sync_schemas": [],
    "asgi_analytics.admin.dashboard.set_dashboard_metric": [],
    "asgi_analytics.admin.dashboard.update_realtime_metric": [],
    "asgi_analytics.admin.subjects.erase": [],
    "asgi_analytics.admin.subjects.anonymise": [],
    "asgi_analytics.admin.subjects.export": [],
    "asgi_analytics.admin.subjects.stream": [],
    "asgi_analytics.admin.subjects.status": [],
    "asgi_analytics.AnalyticsMiddleware": [],
    "asgi_analytics.PageViews": [],
    "asgi_analytics.set_user": [],
    "asgi_analytics.set_session": [],
    "asgi_analytics.instrument_asyncpg": [],
    "asgi_analytics.capture_request": [],
    "asgi_analytics.capture_query": [],
    "asgi_analytics.capture_errors": [],
    "asgi_analytics.Event": [],
    "asgi_analytics.EnrichedEvent": [],
    "asgi_analytics.events.track": [],
    "asgi_analytics.events.page": [],
    "asgi_analytics.events.identify": [],
    "asgi_analytics.events.NamedEvent": [],
    "asgi_analytics.AnalyticsWorker": ["run", "aclose"],
    "asgi_analytics.Sink": [],
    "asgi_analytics.TimescaleSink": [],
    "asgi_analytics.MemorySink": [],
    "asgi_analytics.sinks.http.HttpSink": [],
    "asgi_analytics.sinks.sqlite.SqliteSink": [],
    "asgi_analytics.migrate.copy.copy": [],
    "asgi_analytics.migrate.drop.drop": [],
    "asgi_analytics.web.ingestion.create_ingestion_app": [],
    "asgi_analytics.instrumentation.psycopg.instrument_psycopg": [],
    "asgi_analytics.web.api.create_api_app": [],
    "asgi_analytics.web.dashboard.create_dashboard_app": [],
    "asgi_analytics.web.collector.create_collector_app": [],
    "asgi_analytics.testing.capture_events": [],
    "asgi_analytics.reading.AnalyticsReader": ["from_url", "open", "aclose", "answer", "stream"],
}  # fmt: skip
COMMANDS = {
    "analytics-migrate": "asgi_analytics.cli.migrate",
    "analytics-ingest": "asgi_analytics.cli.ingest",
    "analytics-api": "asgi_analytics.cli.api",
    "analytics-schemas": "asgi_analytics.cli.schemas",
    "analytics-subject": "asgi_analytics.cli.subject",
    "analytics-export": "asgi_analytics.cli.export",
}


def attribute_docs(cls: type) -> dict[str, str]:
    """Return the strings that stand below the fields of a class."""
    source = inspect.getsource(cls)
    found = re.findall(r'^    (\w+): [^\n]+\n    """(.*?)"""', source, re.MULTILINE | re.DOTALL)
    return {name: " ".join(text.split()) for name, text in found}


def type_name(annotation: Any) -> str:
    """Return how a type is written, without the modules."""
    if typing.get_origin(annotation) is typing.Annotated:
        return type_name(annotation.__origin__)
    if annotation in (type(None), None):
        return "None"
    arguments = typing.get_args(annotation)
    if isinstance(annotation, type) and not arguments:
        return annotation.__name__
    text = " | ".join(map(type_name, arguments)) if "|" in str(annotation) and arguments else str(annotation)
    return re.sub(r"\b(?:typing|collections\.abc|uuid|asgi_analytics\.[\w.]+|collections)\.", "", text)


def is_personal(annotation: Any) -> bool:
    """Tell whether a field is stored as its keyed hash."""
    return any((m.extra or {}).get(PERSONAL) for m in getattr(annotation, "__metadata__", ()))


def event_lines() -> Iterator[str]:
    """Yield the catalogue."""
    for name in dir(events):
        cls = getattr(events, name)
        if not (isinstance(cls, type) and issubclass(cls, Event)) or cls in (Event, events.NamedEvent):
            continue
        yield f"## {name}\n\n`{event_type_of(cls)}`. {inspect.getdoc(cls)}\n"
        yield "| field | type | |\n|---|---|---|"
        for field in msgspec.structs.fields(cls):
            notes = ["optional"] if field.default is None else []
            notes += ["the column user_id"] if field.name == "user_id" else []
            notes += ["personal: stored as its keyed hash"] if is_personal(field.type) else []
            yield f"| {field.name} | `{type_name(field.type).replace('|', chr(92) + '|')}` | {', '.join(notes)} |"
        yield ""


def setting_lines() -> Iterator[str]:
    """Yield the settings with their defaults and variables."""
    docs = attribute_docs(Settings)
    variables = {name: variable for variable, (name, _) in VARIABLES.items()}
    yield "| setting | default | variable | meaning |\n|---|---|---|---|"
    required = len(Settings.__struct_fields__) - len(Settings.__struct_defaults__)
    defaults = ["required"] * required + [f"`{default!r}`" for default in Settings.__struct_defaults__]
    for name, default in zip(Settings.__struct_fields__, defaults, strict=True):
        variable = f"`{variables[name]}`" if name in variables else ""
        yield f"| `{name}` | {default} | {variable} | {docs[name]} |"
    yield "| | | `ANALYTICS_URL` | The URL of `AnalyticsClient.from_environ()`. |"
    yield "| | | `ANALYTICS_TOKEN` | The token that is sent to an ingestion service. |"


def stats_lines() -> Iterator[str]:
    """Yield the figures of `client.stats()`."""
    docs = attribute_docs(Stats)
    yield "| figure | meaning |\n|---|---|"
    for name in Stats.__struct_fields__:
        yield f"| `{name}` | {docs[name]} |"


def signature(of: Any) -> str:
    """Return the parameters as one writes them, one a line where they are many."""
    parameters, is_keyword = [], False
    for parameter in inspect.signature(of).parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not is_keyword:
            parameters.append("*")
            is_keyword = True
        stars = {parameter.VAR_KEYWORD: "**", parameter.VAR_POSITIONAL: "*"}.get(parameter.kind, "")
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        parameters.append(f"{stars}{parameter.name}: {parameter.annotation}{default}")
    short = f"({', '.join(parameters)})"
    returns = inspect.signature(of).return_annotation
    short += "" if inspect.isclass(of) or returns is inspect.Signature.empty else f" -> {returns}"
    return short if len(short) < 90 else "(\n    " + ",\n    ".join(parameters) + ",\n)"


def public_lines() -> Iterator[str]:
    """Yield what is public, with its parameters and its docstring; the settings have a table of their own."""
    for path, methods in PUBLIC.items():
        module, _, name = path.rpartition(".")
        public = getattr(importlib.import_module(module), name)
        where = "" if module == "asgi_analytics" else f"`from {module} import {name}`. "
        yield f"### {name}\n"
        if name not in ("AnalyticsClient", "Sink", "Event", "EnrichedEvent", "NamedEvent"):
            yield f"```text\n{name}{signature(public)}\n```\n"
        yield where + (inspect.getdoc(public) or "").replace("::\n", ":\n") + "\n"
        for method in methods:
            function = getattr(public, method)
            start = "await " if inspect.iscoroutinefunction(function) else ""
            owner = name if inspect.ismethod(function) else SHORT[name]
            yield f"```text\n{start}{owner}.{method}{signature(function)}\n```\n"
            yield (inspect.getdoc(function) or "") + "\n"


def parsers(module: Any) -> argparse.ArgumentParser:
    """Return the parser of a command."""
    parser: argparse.ArgumentParser = module.make_parser()
    return parser


def command_lines() -> Iterator[str]:
    """Yield the help of each command."""
    for name, module in COMMANDS.items():
        parser = parsers(importlib.import_module(module))
        parser.formatter_class = lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=100)
        yield f"## {name}\n\n```text\n{parser.format_help().strip()}\n```\n"


def page(title: str, *parts: str) -> str:
    """Return a whole page."""
    head = (f"# {title}", "<!-- Written by docs/make_reference.py from the code: change it there. -->")
    return "\n\n".join(part.strip() for part in (*head, *parts)) + "\n"


def pages() -> dict[str, str]:
    """Return the pages by their names."""
    error_tree = textwrap.dedent(inspect.getdoc(errors) or "").partition("::\n\n")[2].partition("\n\n")[0]
    return {
        "api.md": page(
            "Settings, classes and functions",
            "## Settings",
            "`AnalyticsClient(...)`, `AnalyticsClient.from_url(url, ...)` and `AnalyticsClient.from_environ()` take "
            "these.",
            "\n".join(setting_lines()),
            "## Classes and functions",
            "Importable from `asgi_analytics` unless another module is named.",
            "\n".join(public_lines()),
            "## Stats",
            inspect.cleandoc(Stats.__doc__ or ""),
            "\n".join(stats_lines()),
            "With an OpenTelemetry SDK the same figures are metrics, `analytics.events.accepted` and so on, by "
            "`service`; those with reasons also by `reason`.",
            "## Errors",
            "```text\n" + textwrap.dedent(error_tree) + "\n```",
        ),
        "commands.md": page("Commands", "\n".join(command_lines())),
        "events.md": page(
            "Events",
            "Every event is a frozen struct; its fields are given by name. `user_id` takes a UUID, or any other str or "
            "int, which is mapped by `uuid5(USER_NAMESPACE, str(user_id))` with the original in `context.user_key`; "
            "`USER_NAMESPACE` is importable from `asgi_analytics.events`. Durations are milliseconds unless the name "
            "says otherwise.",
            "\n".join(event_lines()),
        ),
    }


if __name__ == "__main__":
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"{name} written\n")
