"""A dry run's script: what a run would do, as SQL that psql can execute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_analytics.database.names import quoted
from asgi_analytics.migrate import aggregates, ledger
from asgi_analytics.migrate.plan import leaves_history

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asgi_analytics.database.flavour import Flavour, Found
    from asgi_analytics.migrate.files import MigrationFile
    from asgi_analytics.migrate.session import Session

HISTORY = "-- the history of the aggregates\n\n{sql}"


def write(
    session: Session, found: Found, flavour: Flavour, steps: Sequence[MigrationFile], library_version: str
) -> str:
    """Return the script; empty if there is nothing to do."""
    if not steps:
        return ""
    parts: list[str] = []
    if not session.schema_exists:
        parts.append(f"CREATE SCHEMA IF NOT EXISTS {quoted(session.schema)};")
    if found.create_sql is not None:
        parts.append(f"{found.create_sql};")
    parts.append(f"SET search_path TO {session.search_path(found.extension_schema)};\nSET timezone TO 'UTC';")
    if not session.has_ledger or session.is_new:
        parts.append(f"BEGIN;\n{ledger.create_sql(flavour)}\nCOMMIT;")
    for file in steps:
        if file.needs_history:
            parts.append(HISTORY.format(sql=aggregates.script()))
        body = [_ended(statement.text) for statement in file.statements[flavour]]
        body.append(_ended(ledger.record_sql(file, library_version)))
        if file.transactional:
            body = ["BEGIN;", *body, "COMMIT;"]
        parts.append("\n\n".join([f"-- {file.name}: {file.description}", *body]))
    if leaves_history(session.files, session.rows, steps):
        parts.append(HISTORY.format(sql=aggregates.script()))
    return "\n\n".join(parts) + "\n"


def _ended(statement: str) -> str:
    comment_at_the_end = "--" in statement.rsplit("\n", 1)[-1]
    return f"{statement}\n;" if comment_at_the_end else f"{statement};"
