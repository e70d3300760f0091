from pathlib import Path

import pytest

from tests.support.ordering import TESTS, rank, unit


def test_the_longest_tests_start_first() -> None:
    files = ["unit/sdk/test_a.py", "contract/test_store.py", "e2e/test_faults.py", "contract/test_invites.py"]
    assert sorted(files, key=lambda file: rank(TESTS / file)) == list(reversed(files))
    assert rank(Path("/elsewhere/test_a.py")) == rank(TESTS / "golden" / "test_frames.py") > rank(TESTS / "packaging")


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
