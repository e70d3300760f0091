"""The outside of a gateway payload: op, s, t are read, d is validated but not parsed. Pure."""

import re
from typing import Annotated

import msgspec

_NAME = re.compile(r"[A-Z0-9_]{1,64}")
_NAMES_KNOWN_MAX = 512
_NULL = msgspec.Raw(b"null")


class ProtocolError(Exception):
    """The peer sent what the gateway protocol does not allow. Close so that the session is kept, and RESUME."""


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """A payload as received; `d` is its untouched JSON."""

    op: int
    s: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None
    t: str | None = None
    d: msgspec.Raw = _NULL


_decode = msgspec.json.Decoder(Envelope).decode


def read_envelope(raw: bytes) -> Envelope:
    """Read one payload. Raises ProtocolError when it is not strict JSON in UTF-8, or not an envelope."""
    try:
        if not raw.isascii():
            # d is skipped, not decoded: what is in it would reach consumers unchecked.
            raw.decode()
        return _decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        # The cause would carry the payload; its kind is enough.
        raise ProtocolError(f"malformed payload of {len(raw)} bytes ({type(error).__name__})") from None


def one_line(raw: bytes) -> bytes:
    """The same JSON without line breaks between its tokens, since frames hold one event a line."""
    if b"\n" not in raw:
        return raw
    try:
        return msgspec.json.format(raw, indent=-1)
    except (msgspec.MsgspecError, RecursionError):
        # No string of JSON has a line break in it.
        return raw.replace(b"\n", b" ").replace(b"\r", b" ")


class EventNames:
    """Which event names may become a subject token or a header: [A-Z0-9_]{1,64}. Remembers a bounded number."""

    def __init__(self) -> None:
        self.known: set[str] = set()

    def allows(self, name: str) -> bool:
        """Whether the name is safe to use outside. `name in known` answers faster for one seen before."""
        if name in self.known:
            return True
        if _NAME.fullmatch(name) is None:
            return False
        if len(self.known) < _NAMES_KNOWN_MAX:
            self.known.add(name)
        return True
