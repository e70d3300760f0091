"""The sender over a store, with a real HTTP server. What it sends follows from what the store holds."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

from sandwich_coordinator.operations.health import find_problems
from sandwich_coordinator.operations.snapshot import compose
from sandwich_coordinator.operations.webhooks import WebhookSpec, create_webhook, remove_webhook
from sandwich_coordinator.problems import Code
from sandwich_coordinator.sealing import ClusterKey
from sandwich_coordinator.store.base import Delete, Put
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_coordinator.types import LeaderRecord, NodeRecord
from sandwich_coordinator.webhooks.delivery import Destination, Message, NotDelivered, Resolve
from sandwich_coordinator.webhooks.records import NOTICE_KINDS, WebhookStateRecord
from sandwich_node.webhooks import sender
from sandwich_node.webhooks.sender import GIVE_UP_S, LOOK_S, Timing, WebhookSender
from tests.support.api import KEYS, NOW, FixedPicture, StoredFacts
from tests.support.hook_server import HookServer, hook_server
from verification.simulation.loop import run_virtual

KEY = ClusterKey(b"k" * 32)
FAST = Timing(look_s=0.01, retry_first_s=0.01, retry_max_s=0.02)


class Cluster:
    """Node a leads; a webhook sends to `server`."""

    def __init__(self, server: HookServer) -> None:
        self.server = server
        self.store = MemoryStore()
        self.facts = StoredFacts(self.store)
        self.lease = 0

    async def put(self, key: str, value: bytes, lease: int = 0) -> None:
        assert (await self.store.txn((), [Put(key, value, lease)])).succeeded
        await self.facts.refresh()

    async def lead(self, node: str) -> None:
        await self.put(KEYS.leader, LeaderRecord(node=node, instance="i").encode(), self.lease)

    async def join(self, node: str) -> None:
        record = NodeRecord(node=node, instance="i", address="h:1", version="1")
        await self.put(KEYS.node(node), record.encode(), self.lease)

    async def leave(self, node: str) -> None:
        assert (await self.store.txn((), [Delete(KEYS.node(node))])).succeeded
        await self.facts.refresh()

    async def hook(self, name: str = "h", **more: Any) -> None:
        spec = WebhookSpec(**{"url": self.server.url, "allow_private": True, "events": ("nodes",), **more})
        await create_webhook(self.store, KEYS, KEY, name, spec, now=NOW)
        await self.facts.refresh()

    async def state(self, name: str = "h") -> WebhookStateRecord | None:
        await self.facts.refresh()
        view = self.facts.view()
        assert view is not None
        entry = view.webhook_states.get(name)
        return entry.record if entry is not None else None

    async def until(self, met: Callable[[WebhookStateRecord], object], name: str = "h") -> WebhookStateRecord:
        """The stored state once it meets a condition."""
        async with asyncio.timeout(20):
            while (state := await self.state(name)) is None or not met(state):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return state

    async def known(self, name: str = "h") -> None:
        """Wait until the sender has the webhook, so that what happens from now on is reported."""
        await self.until(lambda state: True, name)

    def sent(self) -> list[list[str]]:
        return [[each["summary"] for each in json.loads(body)["notices"]] for _, body in self.server.received]


@asynccontextmanager
async def sending(cluster: Cluster, node: str = "a", timing: Timing = FAST) -> AsyncIterator[None]:
    picture = FixedPicture()
    running = WebhookSender(cluster.store, KEYS, KEY, cluster.facts, picture, node, wall=lambda: NOW, timing=timing)  # type: ignore[arg-type]
    task = asyncio.create_task(running.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def led(server: HookServer) -> Cluster:
    made = Cluster(server)
    made.lease = await made.store.grant(600)
    await made.join("a")
    await made.lead("a")
    await made.hook()
    return made


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with hook_server() as server:
        yield await led(server)


async def test_what_happens_is_sent_once_and_kept(cluster: Cluster) -> None:
    async with sending(cluster):
        await cluster.known()
        await cluster.join("b")
        await cluster.server.until(1)
        state = await cluster.until(lambda state: state.sent_at and not state.missed)
    assert cluster.sent() == [["node b has joined"]]
    assert state.facts.nodes == ["a", "b"]


async def test_a_new_leader_goes_on_where_the_last_one_was(cluster: Cluster) -> None:
    async with sending(cluster):
        await cluster.known()
        await cluster.join("b")
        await cluster.server.until(1)
        await cluster.until(lambda state: state.sent_at and not state.missed)
    # No node sends while this happens.
    await cluster.join("c")
    await cluster.lead("b")
    async with sending(cluster, "a"), sending(cluster, "b"):
        await cluster.server.until(2)
    assert cluster.sent() == [["node b has joined"], ["node c has joined"]]


async def test_a_node_that_does_not_lead_sends_nothing(cluster: Cluster) -> None:
    async with sending(cluster, "b"):
        await cluster.join("b")
        for _ in range(20):
            await asyncio.sleep(0.01)
    assert cluster.server.received == []
    assert await cluster.state() is None


async def test_a_failure_is_tried_again_with_what_is_new_then(cluster: Cluster) -> None:
    cluster.server.answers = [(500, {}, ""), (429, {"Retry-After": "0.05"}, "")]
    first = cluster.server.hold = asyncio.Event()
    async with sending(cluster):
        await cluster.known()
        await cluster.join("b")
        await cluster.server.until(1)
        second = cluster.server.hold = asyncio.Event()
        first.set()
        await cluster.server.until(2)
        await cluster.join("c")
        second.set()
        await cluster.server.until(3)
        state = await cluster.until(lambda state: state.sent_at and not state.missed)
    assert cluster.sent() == [["node b has joined"]] * 2 + [["node b has joined", "node c has joined"]]
    assert (state.failing_since, state.error) == (0.0, "")


@dataclass
class Receiver:
    """In the place of `deliver`. `fails`: with what it refuses the next tries; then it takes all."""

    fails: list[NotDelivered] = field(default_factory=list)
    tries: list[tuple[float, list[str]]] = field(default_factory=list)

    async def deliver(self, _to: Destination, message: Message, *, resolve: Resolve) -> None:
        summaries = [each["summary"] for each in json.loads(message.body)["notices"]]
        self.tries.append((asyncio.get_running_loop().time(), summaries))
        if self.fails:
            raise self.fails.pop(0)

    def pauses(self) -> list[float]:
        times = [at for at, _ in self.tries]
        return [after - before for before, after in pairwise(times)]


def in_virtual_time(
    monkeypatch: pytest.MonkeyPatch, receiver: Receiver, story: Callable[[Cluster], Awaitable[None]]
) -> None:
    """With the times that nodes have."""
    monkeypatch.setattr(sender, "deliver", receiver.deliver)

    async def main() -> None:
        cluster = await led(HookServer(url="http://127.0.0.1:9/hush"))
        async with sending(cluster, timing=Timing()):
            await cluster.known()
            await story(cluster)

    run_virtual(main())


def test_retries_wait_longer_each_time_and_as_long_as_the_receiver_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = Receiver([NotDelivered("HTTP 429", each) for each in (0.0, 0.5, 90.0, 0.0)])

    async def story(cluster: Cluster) -> None:
        await cluster.join("b")
        await asyncio.sleep(30.0)
        await cluster.join("c")
        await asyncio.sleep(300.0)

    in_virtual_time(monkeypatch, receiver, story)
    for pause_s, least_s in zip(receiver.pauses(), (4.0, 8.0, 90.0, 32.0), strict=True):
        assert least_s <= pause_s <= least_s + 2 * LOOK_S
    both = ["node b has joined", "node c has joined"]
    assert [summaries for _, summaries in receiver.tries] == [both[:1]] * 3 + [both] * 2


def test_what_is_over_before_it_is_delivered_counts_for_nothing_later(monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = Receiver([NotDelivered("HTTP 500") for _ in range(3)])

    async def story(cluster: Cluster) -> None:
        await cluster.join("b")
        failing = await cluster.until(lambda state: state.error)
        assert failing.failing_since
        await cluster.leave("b")
        await asyncio.sleep(60.0)
        over = await cluster.state()
        assert over is not None
        assert (over.error, over.failing_since, len(receiver.tries)) == ("", 0.0, 1)
        await asyncio.sleep(3 * GIVE_UP_S)
        await cluster.join("c")
        state = await cluster.until(lambda state: state.sent_at)
        assert (state.missed, state.error) == (0, "")

    in_virtual_time(monkeypatch, receiver, story)
    assert [summaries for _, summaries in receiver.tries[1:]] == [["node c has joined"]] * 3
    assert 4.0 <= receiver.pauses()[1] < 8.0


def test_a_webhook_that_gave_something_up_fails_until_a_message_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = Receiver([NotDelivered("HTTP 500") for _ in range(100)])

    async def story(cluster: Cluster) -> None:
        await cluster.join("b")
        await asyncio.sleep(2 * GIVE_UP_S)
        state = await cluster.state()
        assert state is not None
        assert (state.missed, state.error) == (1, "HTTP 500")
        assert state.failing_since
        receiver.fails.clear()
        await cluster.join("c")
        arrived = await cluster.until(lambda state: state.sent_at)
        assert (arrived.missed, arrived.error, arrived.failing_since) == (0, "", 0.0)

    in_virtual_time(monkeypatch, receiver, story)


async def test_a_webhook_that_fails_is_a_problem_and_holds_no_other_back(cluster: Cluster) -> None:
    await cluster.hook("broken", url="http://127.0.0.1:1/hush")
    async with sending(cluster):
        await cluster.known("broken")
        await cluster.join("b")
        await cluster.server.until(1)
        await cluster.until(lambda state: state.failing_since, "broken")
    view = cluster.facts.view()
    assert view is not None
    later = compose(view, {}, etcd_version="", etcd_found=(), now=NOW + 61)
    (found,) = [one for one in find_problems(later) if one.code is Code.WEBHOOK_FAILING]
    assert found.subject == "webhook/broken"
    assert "refused" in found.summary
    assert "hush" not in found.text


async def test_what_cannot_be_delivered_is_given_up_and_counted(cluster: Cluster) -> None:
    cluster.server.answers = [(500, {}, "")]
    async with sending(cluster, timing=Timing(look_s=0.01, retry_first_s=0.01, retry_max_s=0.01, give_up_s=0.0)):
        await cluster.known()
        await cluster.join("b")
        await cluster.server.until(1)
        await cluster.until(lambda state: state.missed == 1)
        await cluster.join("c")
        await cluster.server.until(2)
        await cluster.until(lambda state: state.sent_at and not state.missed)
    assert cluster.sent()[1] == ["node c has joined"]
    assert json.loads(cluster.server.received[1][1])["missed"] == 1


async def test_a_webhook_sealed_with_another_key_fails_and_says_so(cluster: Cluster) -> None:
    view = cluster.facts.view()
    assert view is not None
    record = view.webhooks["h"].record
    spec = WebhookSpec(url=cluster.server.url, allow_private=True, events=NOTICE_KINDS)
    await create_webhook(cluster.store, KEYS, ClusterKey(b"x" * 32), "other", spec, now=NOW)
    await cluster.facts.refresh()
    assert record.sealed.startswith("v1:")
    async with sending(cluster):
        await cluster.known("other")
        await cluster.join("b")
        state = await cluster.until(lambda state: state.error, "other")
    assert "was sealed with cluster key" in state.error


async def test_no_state_is_left_of_a_webhook_that_was_removed(cluster: Cluster) -> None:
    cluster.server.hold = asyncio.Event()
    async with sending(cluster):
        await cluster.known()
        await cluster.join("b")
        await cluster.server.until(1)
        await remove_webhook(cluster.store, KEYS, "h")
        await cluster.facts.refresh()
        cluster.server.hold.set()
        cluster.server.hold = None
        await cluster.hook("next")
        await cluster.known("next")
        await cluster.join("c")
        await cluster.server.until(2)
    assert await cluster.state("h") is None
    assert cluster.sent()[-1] == ["node c has joined"]
