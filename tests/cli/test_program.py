"""A command line whose commands are files: found by name, options anywhere, one line for what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from asgi_analytics.cli.migrate import program as migrate
from asgi_analytics.cli.options import Parser
from asgi_analytics.cli.program import Program, command_first
from tests.kit.scripts import SOURCE

HELLO = """
import msgspec

HELP = "greet by name"

class Greeting(msgspec.Struct):
    name: str
    warnings: tuple[str, ...] = ()

def add_arguments(parser):
    parser.add_argument("name")
    parser.add_argument("--title")

async def run(options, output):
    if options.name == "nobody":
        raise RuntimeError("two\\nlines")
    return Greeting(f"{options.title} {options.name}", ("it rains",))

def show(report, output):
    output.report(report, f"hello, {report.name}")
    return 7
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    folder = tmp_path / "greeter"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "say_hello.py").write_text(HELLO)
    (folder / "shared.py").write_text("'''Not a command: it has no run.'''")
    monkeypatch.syspath_prepend(tmp_path)
    yield Program("greet", "greeter", description="Greet.", epilog="", add_options=_add_options)
    for name in [name for name in sys.modules if name.startswith("greeter")]:
        del sys.modules[name]


def _add_options(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--schema")


def test_a_new_command_is_one_new_file(program: Program, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(program.commands()) == ["say-hello"]
    assert "say-hello" in program.make_parser().format_help()
    assert "greet by name" in program.make_parser().format_help()
    assert program.main(["say-hello", "Ada", "--title", "Countess"]) == 7
    told = capsys.readouterr()
    assert told.out == "hello, Countess Ada\n"
    assert told.err == "greet: warning: it rains\n"


def test_json_is_the_report_in_one_document(program: Program, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--json", "say-hello", "Ada"]) == 7
    told = capsys.readouterr()
    assert told.err == ""
    assert json.loads(told.out) == {"command": "say-hello", "ok": True, "name": "None Ada", "warnings": ["it rains"]}


@pytest.mark.parametrize(
    "arguments",
    [
        "say-hello Ada --title say-hello --schema x",
        "--title say-hello --schema x say-hello Ada",
        "--title=say-hello say-hello --schema x Ada",
        "--schema say-hello --title say-hello say-hello Ada",
    ],
)
def test_any_option_may_stand_before_the_command(
    program: Program, capsys: pytest.CaptureFixture[str], arguments: str
) -> None:
    assert program.main(arguments.split()) == 7
    assert capsys.readouterr().out == "hello, say-hello Ada\n"


def test_the_value_of_an_option_is_not_taken_for_the_command() -> None:
    with_value = frozenset({"--schema"})
    assert command_first(["--schema", "all", "--json", "status", "x"], with_value) == [
        "status", "--schema", "all", "--json", "x",
    ]  # fmt: skip
    assert command_first(["--help", "status"], with_value) == ["--help", "status"]
    assert command_first(["--schema"], with_value) == ["--schema"]
    assert command_first([], with_value) == []


def test_a_failure_is_one_line_with_the_command_in_the_document(
    program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(["say-hello", "nobody", "--json"]) == 2
    told = capsys.readouterr()
    assert told.err == "greet: unexpected RuntimeError: two lines; please report it\n"
    assert json.loads(told.out) == {"command": "say-hello", "ok": False, "error": told.err[7:-1]}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "required: COMMAND; see greet --help"),
        (["say-goodbye"], "invalid choice: 'say-goodbye'"),
        (["say-hello"], "required: name; see greet say-hello --help"),
        (["say-hello", "Ada", "--tit", "x"], "unrecognized arguments: --tit"),
    ],
)
def test_a_wrong_command_line_says_where_to_look(
    program: Program, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert program.main(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert says in told.err
    assert told.err.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a file that cannot be written to")
def test_a_full_disk_below_stdout_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "greeter").mkdir()
    (tmp_path / "greeter" / "__init__.py").touch()
    (tmp_path / "greeter" / "hello.py").write_text(HELLO)
    code = """
import sys
from asgi_analytics.cli.program import Program
sys.exit(Program("greet", "greeter", description="", epilog="", add_options=lambda parser: None).main())
"""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code, "hello", "Ada"],
            env={"PYTHONPATH": f"{tmp_path}:{SOURCE}"}, stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "greet: warning: it rains",
        "greet: cannot write to stdout: No space left on device",
    ]


def test_every_file_of_analytics_migrate_that_runs_is_a_command() -> None:
    assert list(migrate.commands()) == ["all", "copy", "drop", "dry-run", "post", "pre", "refresh", "roles", "status"]
    done = subprocess.run(
        [sys.executable, "-m", "asgi_analytics.cli.migrate", "--version"],
        env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("analytics-migrate ")


@pytest.mark.parametrize("module", ["migrate", "ingest"])
def test_a_reader_of_the_help_that_leaves_is_no_traceback(module: str) -> None:
    code = f"import sys; from asgi_analytics.cli.{module} import main; sys.stdin.read(); sys.exit(main(['--help']))"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(SOURCE)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
