"""Tell PyInstaller where the hook of this package is; the entry point ``pyinstaller40`` names this function."""

from __future__ import annotations

from pathlib import Path


def get_hook_dirs() -> list[str]:
    """Return the folder of ``hook-asgi_analytics.py``."""
    return [str(Path(__file__).parent)]
