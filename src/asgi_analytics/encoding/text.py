"""Text that PostgreSQL can hold."""

from __future__ import annotations


def clean_text(text: str) -> str:
    """Return the text with NUL and lone surrogates, which PostgreSQL cannot hold, replaced by U+FFFD."""
    if "\x00" in text:
        text = text.replace("\x00", "\ufffd")
    elif text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        # Going through UTF-16 joins a surrogate pair that was written as two characters, and replaces the rest.
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
