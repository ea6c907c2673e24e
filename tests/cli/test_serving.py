"""What any command that serves HTTP gets from one place: options, tokens, the port, the log line, an orderly end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from asgi_analytics.cli import serving
from asgi_analytics.cli.options import Parser
from asgi_analytics.errors import ConfigError
from tests.kit.scripts import SOURCE

COMMAND = """
import sys
from starlette.responses import PlainTextResponse
from asgi_analytics.cli import serving
from asgi_analytics.cli.options import Parser

async def look():
    print("looked", file=sys.stderr, flush=True)

def start(options):
    tokens = serving.read_tokens("GREET_TOKENS")
    serving.require_tokens(options, tokens, "GREET_TOKENS")
    serving.serve(app, options, tokens=len(tokens), first_look=look)

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    await PlainTextResponse("hello")(scope, receive, send)

parser = Parser(prog="greet")
serving.add_serving_options(parser, port=8999)
sys.exit(serving.run_service(parser, sys.argv[1:], start))
"""


@contextmanager
def command(*arguments: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    inherited = {name: value for name, value in os.environ.items() if name != "PORT"}
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments],
        env={**inherited, "PYTHONPATH": str(SOURCE), **environ}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            process.kill()


def test_it_serves_any_application_until_a_signal_and_says_where() -> None:
    with command("--port", "0", GREET_TOKENS="a,b") as process:
        assert process.stderr is not None
        found = re.search(r"INFO listening on (http://127\.0\.0\.1:\d+), tokens: 2$", process.stderr.readline().strip())
        assert found is not None
        assert process.stderr.readline() == "looked\n"
        with urllib.request.urlopen(found[1], timeout=10) as answer:
            assert answer.read() == b"hello"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert process.stderr.read().rstrip().endswith("INFO ended")


@pytest.mark.parametrize(
    ("arguments", "environ", "says"),
    [
        (
            ["--host", "0.0.0.0"],
            {},
            "without tokens anyone who reaches 0.0.0.0 could use the service: set GREET_TOKENS",
        ),
        ([], {"GREET_TOKENS": " , "}, "GREET_TOKENS: expected at least one token"),
        ([], {"PORT": "http"}, "PORT: expected a port, 0 to 65535"),
        (["--graceful-timeout", "0"], {}, "argument --graceful-timeout: expected a number of seconds above 0"),
    ],
)
def test_a_wrong_start_is_one_line_and_2(arguments: list[str], environ: dict[str, str], says: str) -> None:
    with command(*arguments, **environ) as process:
        assert process.wait(20) == 2
        assert process.stderr is not None
        told = process.stderr.read()
    assert told.startswith(f"greet: {says}")
    assert told.count("\n") == 1


def test_what_protects_a_service_is_a_token_loopback_or_an_explicit_word() -> None:
    parser = Parser(prog="greet")
    serving.add_serving_options(parser, port=8999)
    public = ["--host", "10.0.0.1"]
    with pytest.raises(ConfigError, match="set TOKENS, or listen on 127"):
        serving.require_tokens(parser.parse_args(public), [], "TOKENS")
    serving.require_tokens(parser.parse_args(public), ["t"], "TOKENS")
    serving.require_tokens(parser.parse_args([*public, "--insecure"]), [], "TOKENS")
    serving.require_tokens(parser.parse_args([]), [], "TOKENS")
