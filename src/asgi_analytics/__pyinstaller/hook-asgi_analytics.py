"""Pack the files that no import names: frameworks, sinks and commands are found by looking, SQL is data."""

from PyInstaller.utils.hooks import collect_data_files, collect_submodules

_LEFT_OUT = ("asgi_analytics.__pyinstaller", "asgi_analytics.testing")

datas = collect_data_files("asgi_analytics")
hiddenimports = collect_submodules(
    "asgi_analytics", filter=lambda name: not name.startswith(_LEFT_OUT), on_error="ignore"
)
