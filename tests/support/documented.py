"""The examples in docs/guide/cache.md, for tests that run them."""

import re
from pathlib import Path

CACHE_PAGE = (Path(__file__).parents[2] / "docs/guide" / "cache.md").read_text()
CLUSTER_RIGHTS = "+cluster|slots +command"
"""The rights that both rules also need on a Redis Cluster, from the page."""


def blocks(language: str) -> list[str]:
    """The page's code in this language."""
    found = re.findall(rf"```{language}\n(.*?)```", CACHE_PAGE, re.DOTALL)
    assert found
    return found


def acl_rule(user: str, *, keys: str = "~sw:*", more: str = "") -> list[str]:
    """The page's rule for a Redis user, as arguments of ACL SETUSER; the password is "secret"."""
    start = f"ACL SETUSER {user} "
    (line,) = (line for block in blocks("sh") for line in block.splitlines() if line.startswith(start))
    text = line.removeprefix("ACL SETUSER ").replace(">PASSWORD", ">secret").replace("~sw:*", keys)
    return [*text.split(), *more.split()]
