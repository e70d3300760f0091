"""Lists in pages: sorted by key, the next page begins behind the last key. Pure."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from sandwich_node.api.models import Page, PageQuery

T = TypeVar("T")
M = TypeVar("M")


def page_of(items: Sequence[T], query: PageQuery, key: Callable[[T], str], model: Callable[[T], M]) -> Page[M]:
    """The page that `query` asks for, of `items` sorted by `key`. What comes and goes meanwhile moves no other item."""
    rest = [item for item in items if key(item) > query.after] if query.after else list(items)
    shown = rest[: query.limit]
    return Page(items=[model(item) for item in shown], next=key(shown[-1]) if len(rest) > len(shown) else None)
