"""Untrusted text made safe to print or log: it cannot control a terminal, end a line or hide other text.

Discord's users, bots, servers and other writers to the store choose such text. Unsafe are: C0 and C1 control
characters (ESC, CSI), DEL, line and paragraph separators, Unicode's bidirectional controls (UAX #9), invisible format
characters, and lone surrogates, which no output stream can encode. The joiners of emoji and of scripts stay. Pure.
"""

import re

_UNSAFE = (
    "\x00-\x1f\x7f-\x9f"
    "\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0001"
)
_LINE = re.compile(f"[{_UNSAFE}]")
_LINES = re.compile(f"(?!\n)[{_UNSAFE}]")


def plain_text(text: object, *, mark: str | None = None) -> str:
    """One line without unsafe characters: each becomes its escape (`\\x1b`, `\\u202e`), or `mark` if given."""
    return _LINE.sub(_escape if mark is None else lambda _: mark, str(text))


def plain_lines(text: str) -> str:
    """As `plain_text` for text that is several lines on purpose: line feeds stay."""
    return _LINES.sub(_escape, text)


def plain_json(document: str) -> str:
    """JSON text with the unsafe characters of its strings as JSON escapes. Line feeds between values stay."""
    return _LINES.sub(lambda found: "".join(f"\\u{unit:04x}" for unit in _utf16(found[0])), document)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    named = {0x09: "\\t", 0x0A: "\\n", 0x0D: "\\r"}.get(code)
    return named or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")


def _utf16(character: str) -> list[int]:
    code = ord(character)
    if code < 0x10000:
        return [code]
    return [0xD800 + ((code - 0x10000) >> 10), 0xDC00 + ((code - 0x10000) & 0x3FF)]
