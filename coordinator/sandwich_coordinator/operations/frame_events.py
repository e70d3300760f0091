"""Reads events out of frames, for those who watch them as they come. Pure."""

from typing import Any

import msgspec

from sandwich_sdk.wire.headers import FrameHeaders
from sandwich_sdk.wire.plain_text import plain_json
from sandwich_sdk.wire.surrogates import without_lone_surrogates

_SPACES = {ord(character): " " for character in "\t\n\r"}


def decoded_event(event: bytes) -> dict[str, Any]:
    """One event with its type `t`. Raises LookupError, TypeError, and UNREADABLE for a corrupt one."""
    decoded: dict[str, Any] = msgspec.json.decode(without_lone_surrogates(event))
    if not isinstance(decoded["t"], str):
        raise TypeError("its type is no string")
    return decoded


def one_line(event: bytes) -> str:
    """The JSON of an event on one line, without control characters."""
    # Strings of valid JSON contain no line breaks: all line breaks are between values.
    return plain_json(event.decode(errors="replace").translate(_SPACES))


def joined(parts: dict[str, bytes], subject: str, headers: FrameHeaders, payload: bytes) -> bytes | None:
    """A frame's payload; None while parts are missing. `parts` collects the parts by subject."""
    index, total = headers.part or (1, 1)
    before = parts.pop(subject, b"") if index > 1 else b""
    if index > 1 and not before:
        # The reader started in the middle of the frame.
        return None
    if index < total:
        parts[subject] = before + payload
        return None
    return before + payload
