"""A pytest plugin: which tests run in which order, and on which worker of pytest-xdist.

Tests of a module run on one worker, because they share servers. Those of the longest modules are distributed one by
one, unless they share a cluster. Most tests of processes wait; what uses a core all the time (`COMPUTING`) runs beside
them from the start, on one worker at a time as long as there are others. The longest tests start first, so that the run
does not end with a single long test.
"""

from collections.abc import Iterable
from functools import cache
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
    "e2e/test_faults.py",
    "e2e/test_nats_faults.py",
    "e2e/",
    "contract/test_invites.py",
    "contract/test_both_ways.py",
    "contract/test_server_health.py",
    "contract/test_chain_jetstream.py",
    "contract/test_certificates.py",
    "contract/test_switch.py",
    "deploy/test_watching.py",
    "deploy/",
    "contract/test_workers.py",
    "contract/test_ordered.py",
    "simulator/test_world.py",
    "contract/",
    "packaging/",
    "simulator/",
)
"""Tests that wait, from the longest on."""
COMPUTING = (
    "dashboard/test_operating.py",
    "unit/verification/simulation/",
    "unit/node/test_group_switch.py",
    "dashboard/",
    "contract/test_api_document.py",
    "contract/test_cache_stories.py",
    "unit/",
    "",
)
"""Tests that use a core, from the longest on; the others are among them."""
_TESTS = "tests/"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort by rank. The sort is stable: tests of a module stay together in their order."""
    items.sort(key=lambda item: rank(item.nodeid))


@cache
def rank(nodeid: str) -> tuple[bool, int]:
    """Whether a test computes; its place among those that do, or that wait: the longest entry that it is below."""
    name = nodeid.removeprefix(_TESTS)
    _, computes, place = max(
        (len(entry), computes, place)
        for computes, entries in ((False, FIRST), (True, COMPUTING))
        for place, entry in enumerate(entries)
        if name.startswith(entry)
    )
    return computes, place


def unit(nodeid: str) -> str:
    """The unit that a worker takes: a module, or a single test."""
    file = nodeid.partition("::")[0]
    name = file.removeprefix(_TESTS)
    return nodeid if name.startswith(SINGLY) and name not in TOGETHER else file


def next_unit(waiting: Iterable[str], *, is_computing: bool) -> str:
    """The unit that a worker takes of those that wait; `is_computing`: another worker has one that computes."""
    left = list(waiting)
    return next((each for each in left if rank(each)[0] is not is_computing), left[0])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Only for `--dist loadscope`; called in the process that distributes tests."""
    from xdist.scheduler import LoadScopeScheduling

    if config.getoption("dist") != "loadscope":
        return None

    class Units(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit(nodeid)

        def _assign_work_unit(self, node: Any) -> None:
            others = [units for other, units in self.assigned_work.items() if other is not node]
            is_computing = any(
                rank(each)[0] and not all(tests.values()) for units in others for each, tests in units.items()
            )
            first = next_unit(self.workqueue, is_computing=is_computing)
            self.workqueue.move_to_end(first, last=False)
            super()._assign_work_unit(node)

        def _reschedule(self, node: Any) -> None:
            # A worker needs to know the next test, not more: one that waits for long keeps none from the others.
            if self._pending_of(self.assigned_work[node]) < 2:
                super()._reschedule(node)

    config.option.loadscopereorder = False
    return Units(config, log)
