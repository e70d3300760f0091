"""The back-off of the cluster and the one of the SDK: two classes, because neither package may import the other."""

import random
from types import ModuleType

import pytest

from sandwich_coordinator import backoff as cluster
from sandwich_sdk import backoff as sdk

MODULES = pytest.mark.parametrize("module", [cluster, sdk], ids=["cluster", "sdk"])


@MODULES
def test_a_wait_doubles_with_each_failure_up_to_its_limit(module: ModuleType) -> None:
    assert [module.doubled_s(0.2, 5.0, failures) for failures in (0, 1, 2, 3, 6, 10**6)] == [
        0.2,
        0.2,
        0.4,
        0.8,
        5.0,
        5.0,
    ]
    assert module.doubled_s(0.2, 0.05, 1) == 0.05, "a limit below the first wait counts"


@MODULES
def test_a_wait_has_jitter_below_it_and_starts_again_after_a_success(module: ModuleType) -> None:
    backoff = module.Backoff(1.0, 8.0, random.Random(1))
    for expected in (1.0, 2.0, 4.0, 8.0, 8.0):
        assert expected / 2 <= backoff.next_s() <= expected
    assert backoff.failures == 5
    backoff.succeeded()
    assert (backoff.failures, backoff.next_s() <= 1.0) == (0, True)


@MODULES
def test_two_workers_that_fail_together_do_not_wait_in_step(module: ModuleType) -> None:
    one, other = (module.Backoff(1.0, 8.0, random.Random(seed)) for seed in (1, 2))
    assert [one.next_s() for _ in range(5)] != [other.next_s() for _ in range(5)]


def test_the_workers_of_the_sdk_have_different_jitter_without_a_seed() -> None:
    assert len({sdk.Backoff(1.0, 8.0).next_s() for _ in range(20)}) > 1
