"""Run ``python -m asgi_analytics.cli.subject``."""

import sys

from asgi_analytics.cli.subject import main

if __name__ == "__main__":
    sys.exit(main())
