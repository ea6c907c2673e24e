"""From a body to the JSON of each element, changed only if PostgreSQL could not store it."""

from __future__ import annotations

import re

import msgspec

from asgi_analytics.encoding.text import clean_text

_BOM = b"\xef\xbb\xbf"
_MANY_COMMAS = 50
"""Commas per allowed event. A body with more may hold millions of elements: they are counted before memory is
allocated for them."""

_MOST_PARTS = 500_000
"""Where counting by hand gives up, after a tenth of a second."""

_TWO_BACKSLASHES = b"\xff\xfe"  # a placeholder: UTF-8 never holds these bytes
_BAD_ESCAPE = re.compile(
    rb"\\u0000"
    rb"|\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
_STRING = rb'"(?:[^"\\]++|\\.)*+(?:"|\Z)'
_IN_ELEMENT = re.compile(_STRING + rb"|[\[\]{},]", re.DOTALL)
_IN_NESTED = re.compile(_STRING + rb"|[\[{]+|[\]}]", re.DOTALL)

_split = msgspec.json.Decoder(list[msgspec.Raw]).decode


class NotAnArray(ValueError):
    """The body is not a JSON array; the message says what is wrong, and quotes nothing."""


class TooManyElements(ValueError):
    """The array has more elements than a batch may have."""


def split(body: bytes | bytearray, most: int) -> list[bytes | None]:
    """Return the JSON of each element of an array, NUL and lone surrogates replaced by U+FFFD.

    None stands for an element that is not UTF-8. Raises `NotAnArray`, and `TooManyElements` for more than ``most``.
    """
    if body.startswith(_BOM):
        body = body[len(_BOM) :]
    if 92 in body and b"\\u" in body:  # 92 is a backslash; looking for one byte costs a hundredth
        body = _mend_escapes(body)
    is_text = True
    try:
        body.decode()
    except UnicodeDecodeError:
        try:  # surrogates, each encoded as if it were a character
            body = clean_text(body.decode("utf-8", "surrogatepass")).encode()
        except UnicodeDecodeError:
            is_text = False
    try:
        # Usually the length is enough; counting costs a tenth of everything here.
        if len(body) > most * _MANY_COMMAS and body.count(b",") > most * _MANY_COMMAS:
            _scan(body, most)
        raws = _split(body)
    except RecursionError:
        lines = _scan(body, most)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NotAnArray(str(error)) from None
    else:
        if len(raws) > most:
            raise TooManyElements
        lines = list(map(bytes, raws))
    return list(lines) if is_text else [_as_text(line) for line in lines]


def _mend_escapes(body: bytes | bytearray) -> bytes | bytearray:
    r"""Replace ``\u0000`` and escaped lone surrogates, unless the backslash is itself escaped."""
    hidden = body.replace(b"\\\\", _TWO_BACKSLASHES)
    mended, number = _BAD_ESCAPE.subn(rb"\\ufffd", hidden)
    return mended.replace(_TWO_BACKSLASHES, b"\\\\") if number and _TWO_BACKSLASHES not in body else body


def _as_text(line: bytes) -> bytes | None:
    try:
        line.decode()
    except UnicodeDecodeError:
        try:
            return clean_text(line.decode("utf-8", "surrogatepass")).encode()
        except UnicodeDecodeError:
            return None
    return line


def _scan(body: bytes | bytearray, most: int) -> list[bytes]:
    """Return the elements of an array by counting brackets, in bounded time and without recursion.

    This is for bodies that the parser cannot or should not take. What it returns may not be JSON.
    """
    text = bytes(body).strip(b" \t\r\n")
    if not (text.startswith(b"[") and text.endswith(b"]")):
        raise NotAnArray("expected an array")
    lines: list[bytes] = []
    at = start = 1
    depth = 0
    for _ in range(_MOST_PARTS):
        found = (_IN_NESTED if depth else _IN_ELEMENT).search(text, at)
        if found is None:
            raise NotAnArray("the array does not end")
        token, at = found[0], found.end()
        if token[0] in b"[{":
            depth += len(token)
        elif token[0] in b"]}" and depth:
            depth -= 1
        elif token == b"," or (token == b"]" and at == len(text)):
            lines.append(text[start : at - 1].strip(b" \t\r\n"))
            if len(lines) > most:
                raise TooManyElements
            if token == b"]":
                return lines
            start = at
        elif token[0] != 34:  # a closing bracket without an opening one
            raise NotAnArray("the brackets do not match")
    raise TooManyElements


def depth_exceeds(line: bytes, most: int) -> bool:
    """Tell whether objects and arrays of a JSON text are nested deeper than ``most`` levels."""
    if line.count(b"{") + line.count(b"[") <= most:  # too few brackets for that
        return False
    depth = at = 0
    while (found := _IN_NESTED.search(line, at)) is not None:
        token, at = found[0], found.end()
        if token[0] in b"[{":
            depth += len(token)
            if depth > most:
                return True
        elif token[0] in b"]}":
            depth -= 1
    return False
