"""How deeply JSON nests. Pure.

A decoder's own bound is the stack that its caller has left: what a node takes, a consumer may not. So what is not
Discord's is held to a fixed one.
"""

import re
from itertools import accumulate
from typing import Final

NESTING_MAX: Final = 100

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def nests_deeper(raw: bytes, limit: int = NESTING_MAX) -> bool:
    """Whether lists and objects of this valid JSON nest in more than `limit` levels. Cheap where they are few."""
    if raw.count(b"[") + raw.count(b"{") <= limit:
        return False
    brackets = _STRING.sub(b"", raw).translate(None, _NOT_BRACKETS)
    return max(accumulate(1 if byte in b"[{" else -1 for byte in brackets), default=0) > limit
