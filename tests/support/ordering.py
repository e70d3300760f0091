"""A pytest plugin: which tests run in which order, and on which worker of pytest-xdist.

Tests of a module run on one worker, because they share servers. End-to-end tests are distributed one by one, because
each takes long, unless they share a cluster. The longest tests start first, so that the run does not end with a single
long test. The longest modules mostly wait, and run beside end-to-end tests, which need the cores.
"""

from pathlib import Path
from typing import Any

import pytest

ALONE = "e2e"
TOGETHER = ("e2e/test_bad_input.py",)
"""End-to-end tests that share a cluster."""
FIRST = (
    "contract/test_invites.py",
    "contract/test_chain_jetstream.py",
    "contract/test_ordered.py",
    "e2e",
    "contract",
    "simulator",
    "packaging",
)
TESTS = Path(__file__).parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort by rank. The sort is stable: tests of a module stay together in their order."""
    items.sort(key=lambda item: rank(item.path))


def rank(path: Path) -> int:
    """Position of a test file: the first entry of FIRST that names it or its directory; others come last."""
    parts = path.relative_to(TESTS).parts if path.is_relative_to(TESTS) else ()
    names = {"/".join(parts), *parts[:1]}
    return next((place for place, name in enumerate(FIRST) if name in names), len(FIRST))


def unit(nodeid: str) -> str:
    """The unit that a worker takes: a module, or a single test for most end-to-end tests."""
    file = nodeid.partition("::")[0]
    inside = file.removeprefix(f"{TESTS.name}/")
    return nodeid if inside.startswith(f"{ALONE}/") and inside not in TOGETHER else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Only for `--dist loadscope`; called in the process that distributes tests."""
    from xdist.scheduler import LoadScopeScheduling

    if config.getoption("dist") != "loadscope":
        return None

    class Units(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit(nodeid)

    config.option.loadscopereorder = False
    return Units(config, log)
