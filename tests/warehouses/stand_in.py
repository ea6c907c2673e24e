"""Stand-ins: moto for S3, and PostgreSQL behind a proxy that speaks as Redshift does.

The proxy takes what redshift-connector says at the start, refuses what Redshift lacks, and turns into PostgreSQL's what
only Redshift has: SUPER, JSON_PARSE, GETDATE, DISTKEY and SORTKEY, and COPY from a bucket, which becomes an INSERT of
the lines in the same transaction.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

LACKING = re.compile(r"\b(jsonb|ON CONFLICT|RETURNING|DISTINCT ON|CREATE INDEX|FILTER \()", re.IGNORECASE)
COPY = re.compile(r"COPY (?P<table>\w+) FROM 's3://(?P<bucket>[^/']+)/(?P<key>[^']+)'(?P<options>.*)", re.DOTALL)
STARTUP = {b"user", b"database"}


class RedshiftServer:
    """Listens on 127.0.0.1 and talks to a PostgreSQL server that trusts it. ``get(bucket, key)`` returns an object."""

    def __init__(self, host: str, port: int, get: Callable[[str, str], bytes]) -> None:
        self._target = (host, port)
        self._get = get
        self.port = 0
        self.dsn = ""
        """Of the database behind it, for who looks into it."""
        self.statements: list[str] = []
        self.columns: dict[str, list[tuple[str, str]]] = {}
        self.cut_after: str | None = None
        """Cut the connection once, after the server has answered a statement that begins so: the answer is lost."""
        self.listen()

    def listen(self) -> None:
        """Answer, on the same port as before."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()

    def close(self) -> None:
        """Refuse connections from now on."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target) as server, contextlib.suppress(OSError, EOFError):
            server.sendall(self._startup(client))
            back = threading.Thread(target=_pump, args=(server, client), daemon=True)
            back.start()
            while True:
                kind = _exactly(client, 1)
                body = _exactly(client, struct.unpack("!I", _exactly(client, 4))[0] - 4)
                cut = False
                if kind == b"P":
                    name, text, rest = *body.split(b"\0", 2)[:2], body.split(b"\0", 2)[2]
                    sql = text.decode()
                    self.statements.append(sql)
                    cut = self.cut_after is not None and sql.upper().startswith(self.cut_after)
                    body = name + b"\0" + self._translated(sql).encode() + b"\0" + rest
                if cut:
                    self.cut_after = None
                    # Do it, by words of our own, and say nothing to the client.
                    client.shutdown(socket.SHUT_RDWR)
                    server.sendall(_message(b"Q", self._translated(sql).encode() + b"\0"))
                    _exactly(server, 1)
                    return
                server.sendall(_message(kind, body))

    def _startup(self, client: socket.socket) -> bytes:
        while True:
            body = _exactly(client, struct.unpack("!I", _exactly(client, 4))[0] - 4)
            (version,) = struct.unpack("!I", body[:4])
            if version == 80877103:  # asks for TLS
                client.sendall(b"N")
                continue
            words = body[4:].rstrip(b"\0").split(b"\0")
            kept = b"".join(
                name + b"\0" + value + b"\0"
                for name, value in zip(words[::2], words[1::2], strict=False)
                if name in STARTUP
            )
            return struct.pack("!II", len(kept) + 9, 196608) + kept + b"\0"

    def _translated(self, sql: str) -> str:
        if LACKING.search(sql):
            return f"redshift has no {LACKING.search(sql)[0]}"  # type: ignore[index]
        made = re.match(r"CREATE (?:TEMP )?TABLE (?:IF NOT EXISTS )?(\w+) \((.*)\)", sql, re.DOTALL)
        if made:
            self.columns[made[1]] = re.findall(r"(\w+) ([A-Z]+)", made[2])
            sql = re.sub(r"DISTKEY \(.*?\)|SORTKEY \(.*?\)", "", sql)
        if made or sql.startswith("ALTER TABLE"):
            sql = re.sub(r"\bSUPER\b", "jsonb", sql)
        copied = COPY.match(sql)
        if copied:
            return self._inserting(copied)
        sql = re.sub(r"JSON_PARSE\((\w+)\)", r"(\1)::jsonb", sql)
        return sql.replace("GETDATE()", "now()")

    def _inserting(self, copied: re.Match[str]) -> str:
        for option in ("IAM_ROLE", "FORMAT AS JSON 'auto'", "GZIP", "TIMEFORMAT 'auto'"):
            if option not in copied["options"]:
                return f"copy without {option}"
        lines = gzip.decompress(self._get(copied["bucket"], copied["key"])).decode().splitlines()
        rows = json.dumps([json.loads(line) for line in lines]).replace("'", "''")
        columns = self.columns[copied["table"]]
        types = {"VARCHAR": "text", "INTEGER": "integer", "TIMESTAMPTZ": "timestamptz"}
        listed = ", ".join(f"{name} {types[kind]}" for name, kind in columns if kind in types)
        names = ", ".join(name for name, kind in columns if kind in types)
        return (
            f"INSERT INTO {copied['table']} ({names}) SELECT {names} FROM json_to_recordset('{rows}'::json)"
            f" AS line ({listed})"
        )


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def _exactly(stream: socket.socket, number: int) -> bytes:
    found = b""
    while len(found) < number:
        part = stream.recv(number - len(found))
        if not part:
            raise EOFError
        found += part
    return found


def _pump(source: socket.socket, target: Any) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
