"""README and docs say what the code does: nothing public is missing, and the reference is made from the code."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import asgi_analytics
from asgi_analytics import events
from asgi_analytics.config import VARIABLES
from asgi_analytics.events.base import event_types
from asgi_analytics.frameworks import known_frameworks
from asgi_analytics.pipeline.stats import DROP_REASONS
from tests.schema.test_aggregates import COLUMNS as VIEW_COLUMNS
from tests.schema.test_events_table import COLUMNS as TABLE_COLUMNS
from tests.schema.test_metric_aggregates import COLUMNS as METRIC_COLUMNS
from tests.schema.test_metric_aggregates import DASHBOARD_COLUMNS
from tests.schema.test_sessions import COLUMNS as SESSION_COLUMNS

ROOT = Path(__file__).parent.parent.parent
HOW_TO = ROOT / "docs" / "how-to"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def make_reference() -> Any:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_what_the_code_says() -> None:
    for name, text in make_reference().pages().items():
        written = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
        assert written == text, f"{name}: run python docs/make_reference.py"


def test_every_event_setting_figure_variable_and_reason_is_documented() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    ours = [tag for tag, cls in event_types().items() if getattr(events, cls.__name__, None) is cls]
    assert len(ours) == 62
    words = [*ours, *VARIABLES, *DROP_REASONS, *asgi_analytics.__all__]
    missing = [word for word in words if not re.search(rf"\b{re.escape(word)}\b", text)]
    assert not missing, f"not in README or docs: {missing}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_the_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


def test_every_column_of_tables_and_views_is_documented_in_its_order() -> None:
    page = (ROOT / "docs" / "reference" / "tables.md").read_text(encoding="utf-8")
    documented = {}
    for section in page.split("\n### ")[1:]:
        rows = re.findall(r"^\| ([a-z][\w, ]*) \|", section.partition("\n## ")[0], re.MULTILINE)
        documented[section.partition("\n")[0]] = [name for row in rows if row != "column" for name in row.split(", ")]
    tables = {table: [one.split()[0] for one in text.split(", ")] for table, text in TABLE_COLUMNS.items()}
    views = dict(line.split(": ") for line in VIEW_COLUMNS.strip().splitlines())
    others = {
        "analytics_sessions": SESSION_COLUMNS.split(),
        "analytics_metric_aggregates": METRIC_COLUMNS.split(),
        "analytics_dashboard_metrics": DASHBOARD_COLUMNS.split(),
    }
    assert documented == tables | {view: columns.split(", ") for view, columns in views.items()} | others


def test_everything_public_is_in_the_reference() -> None:
    named = {path.rpartition(".")[2] for path in make_reference().PUBLIC}
    assert named >= set(asgi_analytics.__all__) - {"events", "errors"}


def test_every_page_is_linked_from_the_index_and_every_framework_has_one() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    linked = {(ROOT / "docs" / target).resolve() for target in re.findall(r"\]\(([^)#]+\.md)\)", index)}
    docs = [page for page in PAGES[1:] if page.name != "index.md"]
    assert not [page.name for page in docs if page not in linked]
    frameworks = [framework.__module__.rpartition(".")[2] for framework in known_frameworks()]
    frameworks = sorted({name.partition("_")[0] for name in frameworks})
    assert frameworks == ["django", "litestar", "quart", "starlette"]
    pages = {page.stem for page in (HOW_TO / "frameworks").glob("*.md")}
    assert {*frameworks, "fastapi", "bare-asgi"} <= pages


def test_the_changelog_has_the_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{asgi_analytics.__version__}]" in text or "## [Unreleased]" in text
