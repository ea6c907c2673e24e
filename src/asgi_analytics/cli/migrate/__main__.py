"""Run ``python -m asgi_analytics.cli.migrate``."""

import sys

from asgi_analytics.cli.migrate import main

if __name__ == "__main__":
    sys.exit(main())
