"""Let tox find the Pythons that pyenv has installed, also those that are not active in this folder."""

from __future__ import annotations

import os
from pathlib import Path

root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
found = [str(path) for minor in (11, 12, 13) for path in sorted(root.glob(f"versions/3.{minor}.*/bin/python"))[-1:]]
if found:
    os.environ.setdefault("TOX_DISCOVER", os.pathsep.join(found))
