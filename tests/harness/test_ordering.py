from pathlib import Path

import pytest

from tests.support.ordering import COMPUTING, FIRST, SINGLY, TOGETHER, next_unit, rank, unit

TESTS = Path(__file__).parents[1]


def test_the_longest_tests_start_first() -> None:
    tests = ["contract/test_store.py", "contract/test_invites.py", "e2e/test_faults.py", "e2e/test_upgrade.py"]
    assert sorted(tests, key=lambda test: rank(f"tests/{test}::test_a")) == list(reversed(tests))
    computing = ["golden/test_frames.py", "unit/sdk/test_a.py", "unit/node/test_group_switch.py"]
    assert sorted(computing, key=lambda test: rank(f"tests/{test}::test_a")) == list(reversed(computing))


def test_a_test_has_the_rank_of_the_longest_entry_that_names_it() -> None:
    real_cluster = "dashboard/test_real_cluster.py"
    assert rank(f"tests/{real_cluster}::test_a") == (False, FIRST.index(real_cluster))
    assert rank("tests/dashboard/test_session.py::test_a") == (True, COMPUTING.index("dashboard/"))
    assert rank("tests/golden/test_frames.py::test_a") == (True, len(COMPUTING) - 1)


def test_what_computes_runs_beside_what_waits_and_alone_when_nothing_waits() -> None:
    waits, computes = "tests/e2e/test_faults.py::test_a", "tests/unit/sdk/test_a.py"
    assert next_unit([waits, computes], is_computing=False) == computes
    assert next_unit([computes, waits], is_computing=True) == waits
    assert next_unit([waits], is_computing=False) == waits
    assert next_unit([computes], is_computing=True) == computes


def test_what_is_named_is_there() -> None:
    names = (*FIRST, *COMPUTING, *SINGLY, *TOGETHER)
    assert [name for name in names if not (TESTS / name).exists()] == []


@pytest.mark.parametrize(
    ("nodeid", "expected"),
    [
        ("tests/contract/test_store.py::test_a[etcd::x]", "tests/contract/test_store.py"),
        ("tests/unit/sdk/test_a.py::Test::test_b", "tests/unit/sdk/test_a.py"),
        ("tests/e2e/test_faults.py::test_a", "tests/e2e/test_faults.py::test_a"),
        ("tests/e2e/test_bad_input.py::test_a", "tests/e2e/test_bad_input.py"),
    ],
)
def test_a_module_stays_on_one_worker_and_end_to_end_tests_are_distributed_singly(nodeid: str, expected: str) -> None:
    assert unit(nodeid) == expected
