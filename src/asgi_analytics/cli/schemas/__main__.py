"""Run ``python -m asgi_analytics.cli.schemas``."""

import sys

from asgi_analytics.cli.schemas import main

if __name__ == "__main__":
    sys.exit(main())
