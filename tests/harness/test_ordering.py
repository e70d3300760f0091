from pathlib import Path

import pytest

from tests.support.ordering import FIRST, SINGLY, TOGETHER, rank, unit

TESTS = Path(__file__).parents[1]


def test_the_longest_tests_start_first() -> None:
    tests = ["unit/sdk/test_a.py", "contract/test_store.py", "e2e/test_faults.py", "e2e/test_upgrade.py"]
    assert sorted(tests, key=lambda test: rank(f"tests/{test}::test_a")) == list(reversed(tests))
    assert rank("test_a.py::test_a") == rank("tests/golden/test_frames.py::test_a") == len(FIRST)


def test_what_is_named_is_there() -> None:
    assert [name for name in (*FIRST, *SINGLY, *TOGETHER) if not (TESTS / name).exists()] == []


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
