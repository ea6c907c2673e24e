"""The folders of migrations that the tests of the flavour apply."""

from __future__ import annotations

from tests.migrate.conftest import folder, folder_of

__all__ = ["folder", "folder_of"]
