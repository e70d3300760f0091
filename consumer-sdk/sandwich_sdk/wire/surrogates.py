"""Lone surrogates in JSON strings: half of a UTF-16 pair, which JSON allows and UTF-8 cannot encode. Pure."""

import re

_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)


def without_lone_surrogates(json: bytes) -> bytes:
    """The same JSON with U+FFFD for each half of a surrogate pair (`\\ud83d` alone): JSON allows one."""
    if b"\\ud" not in json and b"\\uD" not in json:
        return json
    return _ESCAPE.sub(lambda match: b"\\ufffd" if match[1] else match[0], json)
