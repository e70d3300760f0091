"""A pytest plugin: which tests run in which order, and on which worker of pytest-xdist.

Tests of a module run on one worker, because they share servers. Those of the longest modules are distributed one by
one, unless they share a cluster. The longest tests start first, so that the run does not end with a single long test.
They mostly wait; what needs the cores runs beside them.
"""

from typing import Any

import pytest

SINGLY = (
    "e2e/",
    "contract/test_both_ways.py",
    "contract/test_cli.py",
    "contract/test_invites.py",
    "contract/test_server_health.py",
    "dashboard/test_real_cluster.py",
    "deploy/test_watching.py",
)
TOGETHER = ("e2e/test_bad_input.py",)
"""End-to-end tests that share a cluster."""
FIRST = (
    "e2e/test_status_truth.py",
    "e2e/test_upgrade.py",
    "dashboard/test_real_cluster.py",
    "e2e/test_settings_change.py",
    "e2e/test_bad_input.py",
    "e2e/test_rekey.py",
    "e2e/test_nats_faults.py",
    "dashboard/test_operating.py",
    "e2e/",
    "contract/test_invites.py",
    "contract/test_both_ways.py",
    "contract/test_server_health.py",
    "contract/test_chain_jetstream.py",
    "contract/test_ordered.py",
    "contract/",
    "deploy/",
    "dashboard/",
    "packaging/",
    "simulator/",
)
"""From the longest on; the others come last."""
_TESTS = "tests/"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort by rank. The sort is stable: tests of a module stay together in their order."""
    items.sort(key=lambda item: rank(item.nodeid))


def rank(nodeid: str) -> int:
    """Position of a test: the first entry of FIRST that its name below `tests` begins with."""
    name = nodeid.removeprefix(_TESTS)
    return next((place for place, entry in enumerate(FIRST) if name.startswith(entry)), len(FIRST))


def unit(nodeid: str) -> str:
    """The unit that a worker takes: a module, or a single test."""
    file = nodeid.partition("::")[0]
    name = file.removeprefix(_TESTS)
    return nodeid if name.startswith(SINGLY) and name not in TOGETHER else file


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
