"""Run ``python -m asgi_analytics.cli.export``."""

import sys

from asgi_analytics.cli.export import main

if __name__ == "__main__":
    sys.exit(main())
