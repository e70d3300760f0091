"""The scripts that Redis runs. The one that applies events is assembled from its parts in lua/."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import Final, Self

from sandwich_node.cache.settings import LETTERS

_PARTS = ("values", "guilds", "sight", "entities", "members", "messages", "apply")


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text, and the hash by which Redis identifies it.

    `has_parts`: one run takes the keys and arguments of several callers, each caller's arguments behind their number,
    and returns a list with an item for each.
    """

    text: str
    sha: str
    has_parts: bool = False

    @classmethod
    def of(cls, text: str, *, has_parts: bool = False) -> Self:
        """The script with this text."""
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), has_parts)


def _part(name: str) -> str:
    return (files("sandwich_node.cache") / "lua" / f"{name}.lua").read_text(encoding="utf-8")


def _apply() -> str:
    names = ", ".join(f"{letter} = '{name}'" for letter, name in LETTERS.items())
    return "\n".join(map(_part, _PARTS)).replace("--[[NAMES]]", names, 1)


APPLY: Final = Script.of(_apply(), has_parts=True)
"""Applies events."""
FENCE_OUT: Final = Script.of(_part("fence_out"))
"""Raises the fences of other shards' records."""
RELOCATE: Final = Script.of(_part("relocate"))
"""Locates guilds at the shards of another group."""
