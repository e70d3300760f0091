"""Guilds of a group that was replaced: a worker is asked once for each switch, and again when it does not answer."""

import logging

import pytest

from sandwich_coordinator.ids import GroupId
from sandwich_coordinator.types import CacheSpec
from sandwich_node import ipc
from sandwich_node.agent.relocations import ANSWER_S, Relocations, relocation
from sandwich_node.agent.worker_set import WorkerSet
from tests.unit.node.test_view_changes import EMPTY, FakeWorker, group, having

OLD, NEW = GroupId("bot", 4), GroupId("bot", 5)
VIEW = having(group(4, phase="closing"), group(5, phase="switching", replaces=4, count=8))
TO = ipc.NextGroup(group=5, count=8, ids="0-7", continues=True)
ASKED = ipc.RelocateGuilds(app="bot", group=4, to=TO, cache=CacheSpec())


def relocations(*workers: FakeWorker) -> Relocations:
    made = WorkerSet()
    made.slots.update(dict(enumerate(workers)))
    return Relocations(made)


def test_a_worker_is_asked_once_and_its_answer_is_remembered_as_long_as_the_switch_lasts() -> None:
    worker = FakeWorker()
    leader, calls = relocations(worker), []
    leader.on_answer = lambda: calls.append("answer")
    assert leader.advance([(NEW, OLD)], VIEW, 0.0) == frozenset()
    assert leader.advance([(NEW, OLD)], VIEW, ANSWER_S - 1.0) == frozenset()
    assert worker.sent == [ASKED]
    leader.answered(ipc.GuildsRelocated(app="bot", group=4, to=5, moved=7))
    assert calls == ["answer"]
    assert leader.advance([(NEW, OLD)], VIEW, ANSWER_S + 1.0) == {NEW}
    assert leader.advance([], VIEW, ANSWER_S + 2.0) == frozenset()
    assert worker.sent == [ASKED]
    assert leader.advance([(NEW, OLD)], VIEW, ANSWER_S + 3.0) == frozenset()
    assert worker.sent == [ASKED, ASKED], "another leader may have led since"


def test_another_worker_is_asked_when_the_first_one_does_not_answer() -> None:
    first, second = FakeWorker(ready=False), FakeWorker(index=1)
    leader = relocations(first, second)
    leader.advance([(NEW, OLD)], VIEW, 0.0)
    first.ready = True
    leader.advance([(NEW, OLD)], VIEW, ANSWER_S)
    assert (first.sent, second.sent) == ([ASKED], [ASKED])


def test_a_worker_that_gave_up_does_not_keep_the_old_group_and_the_reason_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    leader = relocations(FakeWorker())
    leader.advance([(NEW, OLD)], VIEW, 0.0)
    with caplog.at_level(logging.ERROR):
        leader.answered(ipc.GuildsRelocated(app="bot", group=4, to=5, error="Redis does not answer"))
    assert "group bot/4 may still be located there: Redis does not answer" in caplog.text
    assert leader.advance([(NEW, OLD)], VIEW, 1.0) == {NEW}


def test_without_a_ready_worker_or_the_application_nothing_is_asked() -> None:
    leader = relocations(FakeWorker(ready=False))
    assert leader.advance([(NEW, OLD)], VIEW, 0.0) == frozenset()
    assert relocation((NEW, OLD), EMPTY) is None
    worker = FakeWorker()
    assert relocations(worker).advance([(NEW, OLD)], EMPTY, 0.0) == frozenset()
    assert worker.sent == []
