"""Changes that a node goes on with after their request has its answer."""

import asyncio

import pytest

from sandwich_coordinator.operations.errors import Unavailable
from sandwich_node.api import going_on
from sandwich_node.api.going_on import GoingOn
from tests.support.publisher import until


async def test_a_change_is_carried_out_once_and_a_request_can_take_it_back() -> None:
    changes, begun, ended = GoingOn(), asyncio.Semaphore(0), 0

    async def work() -> None:
        nonlocal ended
        begun.release()
        try:
            await asyncio.Event().wait()
        finally:
            ended += 1

    changes.begin("a", work)
    changes.begin("a", work)
    changes.begin("b", work)
    for _ in range(2):
        await begun.acquire()
    assert begun.locked()
    assert [await changes.end(name) for name in ("a", "a", "c")] == [True, False, False]
    assert ended == 1
    await changes.close()
    assert ended == 2


async def test_a_failure_is_logged_and_ends_nothing_else(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(going_on, "CHANGES_MAX", 1)
    changes = GoingOn()

    async def fails() -> None:
        raise Unavailable("Redis does not answer")

    async def faulty() -> None:
        raise RuntimeError

    for work in (fails, faulty):
        done = asyncio.Event()
        changes.begin("the removal of x", work)
        changes.begin("one too many", done.wait)
        assert not await changes.end("one too many")
        await until(lambda: not changes.names)
    assert "the removal of x goes on no longer: Redis does not answer" in caplog.text
    assert "RuntimeError" in caplog.text
