"""The script that Redis runs, assembled from its parts in lua/."""

import hashlib
from importlib.resources import files
from typing import Final

from sandwich_node.cache.settings import LETTERS

_PARTS = ("values", "guilds", "sight", "entities", "members", "messages", "apply")


def _source() -> str:
    directory = files("sandwich_node.cache") / "lua"
    text = "\n".join((directory / f"{part}.lua").read_text(encoding="utf-8") for part in _PARTS)
    names = ", ".join(f"{letter} = '{name}'" for letter, name in LETTERS.items())
    return text.replace("--[[NAMES]]", names, 1)


SCRIPT: Final = _source()
SCRIPT_SHA: Final = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
"""The hash by which Redis identifies the script."""
