"""Shard ranges as text: "0-3,7"."""

from collections.abc import Iterable


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


def parse_ranges(text: str, *, count: int | None = None) -> list[int]:
    """Ranges as ascending shard ids. Raises ValueError naming the wrong part, or the one not below `count`."""
    shards: set[int] = set()
    for part in text.split(",") if text.strip() else ():
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        if not _is_id(first) or (dash and not _is_id(last)):
            raise ValueError(f"bad shard range {part.strip()[:32]!r}: write it as '3' or '0-7'")
        low, high = int(first), int(last) if dash else int(first)
        if high < low:
            raise ValueError(f"bad shard range {part.strip()[:32]!r}: it ends before it starts")
        if count is not None and high >= count:
            raise ValueError(f"bad shard range {part.strip()[:32]!r}: with {count} shards the last id is {count - 1}")
        if high - low > 100_000:
            raise ValueError(f"bad shard range {part.strip()[:32]!r}: too large")
        shards.update(range(low, high + 1))
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
