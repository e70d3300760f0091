"""Shard ranges as text: "0-3,7"."""

from collections.abc import Iterable

IDS_MAX = 100_000
"""No shard has an id as large as this: a count has an upper limit far below."""
_NAMED_MAX = 2 * IDS_MAX
"""Ids in all ranges of one text together, so that a text of thousands of large ranges is refused at once."""
_SHOWN = 32


def format_ranges(shards: Iterable[int]) -> str:
    """Shard ids as ascending ranges: [0, 1, 2, 7] -> "0-2,7"."""
    parts: list[str] = []
    ordered = sorted(set(shards))
    start = 0
    for index, shard in enumerate(ordered):
        if index + 1 < len(ordered) and ordered[index + 1] == shard + 1:
            continue
        first = ordered[start]
        parts.append(str(first) if first == shard else f"{first}-{shard}")
        start = index + 1
    return ",".join(parts)


def parse_ranges(text: str, *, count: int | None = None, once: bool = False) -> list[int]:
    """Ranges as ascending shard ids; spaces around numbers do not count.

    Raises ValueError naming the wrong part, the one not below `count`, and with `once` the one that names a shard
    again: text that a person wrote says each shard once, or has a slip.
    """
    shards: set[int] = set()
    named = 0
    for part in text.split(",") if text.strip() else ():
        shown = repr(part.strip()[:_SHOWN])
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        if not _is_id(first) or (dash and not _is_id(last)):
            raise ValueError(f"bad shard range {shown}: write it as '3' or '0-7'")
        low, high = int(first), int(last) if dash else int(first)
        if high < low:
            raise ValueError(f"bad shard range {shown}: it ends before it starts")
        if count is not None and high >= count:
            raise ValueError(f"bad shard range {shown}: with {count} shards the last id is {count - 1}")
        named += high - low + 1
        if high >= IDS_MAX or named > _NAMED_MAX:
            raise ValueError(f"bad shard range {shown}: too large")
        ids = range(low, high + 1)
        if once and (twice := next((shard for shard in ids if shard in shards), None)) is not None:
            raise ValueError(f"bad shard range {shown}: it names shard {twice} again")
        shards.update(ids)
    return sorted(shards)


def size_of_ranges(text: str) -> int:
    """How many shards ascending ranges name, as `format_ranges` writes them; 0 when they cannot be read."""
    size = 0
    for part in text.split(",") if text else ():
        first, dash, last = part.partition("-")
        if not _is_id(first) or (dash and not _is_id(last)):
            return 0
        size += int(last) - int(first) + 1 if dash else 1
    return size


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 9
