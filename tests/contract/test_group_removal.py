"""Consumer groups on a real nats-server: what is listed of them, and what a removal takes."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client

from sandwich_coordinator.operations import consumer_groups, group_states
from sandwich_coordinator.operations.consumer_groups import (
    GroupSpec,
    create_group,
    find_group,
    list_groups,
    remove_group,
)
from sandwich_coordinator.operations.dead_letters import LetterFilter, read_letters, replay_letter
from sandwich_coordinator.operations.errors import NotFound, Refused, Unavailable
from sandwich_node.dev.embedded import EmbeddedNats
from sandwich_sdk import Consumer, Event, Failure
from sandwich_sdk.wire import subjects
from tests.support.account_nats import AccountNats
from tests.support.publisher import Publisher, running, take, until

pytestmark = pytest.mark.contract


def spec(group: str, *, ordered: bool = False) -> GroupSpec:
    return GroupSpec(app="bot", group=group, start="all", ordered=ordered)


async def fail(server: EmbeddedNats, group: str, count: int, *, ordered: bool = False) -> None:
    """Have a worker of the group give up `count` events."""
    failures: list[Failure] = []
    consumer = Consumer(server.url, app="bot", group=group, start="all", ordered=ordered, max_tries=2, nak_delay=0.01)
    consumer.on_error(failures.append)

    @consumer.on_any
    async def handle(_event: Event) -> None:
        raise ValueError("no")

    async with running(consumer):
        await until(lambda: sum(one.given_up for one in failures) == count)


async def everything(client: Client, group: str) -> dict[str, object]:
    """What the application's streams have of a group: durables and subjects."""
    jetstream = client.jetstream()
    found: dict[str, object] = {}
    for stream in (
        subjects.stream_name("bot"),
        subjects.dead_stream_name("bot"),
        subjects.tries_stream_name("bot"),
        subjects.replay_stream_name("bot"),
    ):
        there = await jetstream.stream_info(stream, subjects_filter=">")
        of_group = {name for name in there.state.subjects or {} if group in name.split(".")}
        durables = {one.name for one in await jetstream.consumers_info(stream) if one.name.split("@")[0] == group}
        if of_group or durables:
            found[stream] = (durables, of_group)
    return found


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_removal_takes_all_of_a_group_and_nothing_of_another(
    server: EmbeddedNats, publisher: Publisher, ordered: bool
) -> None:
    client = publisher.client
    # `old-2` begins with the other's name.
    for group in ("old", "old-2"):
        await create_group(client, spec(group, ordered=ordered))
    await publisher.events(3)
    for group in ("old", "old-2"):
        await fail(server, group, 3, ordered=ordered)
        letter = await anext(read_letters(client, "bot", LetterFilter(group=group)))
        await replay_letter(client, letter)
    kept, events = await everything(client, "old-2"), await client.jetstream().stream_info("SANDWICH_bot")
    assert len(kept) == len(await everything(client, "old")) == 4
    removed = await remove_group(client, "bot", "old")
    assert (removed.group, removed.ordered, removed.partitions) == ("old", ordered, 32 if ordered else 0)
    assert (removed.lag, removed.dead_letters, removed.replays) == (0, 2, 1)
    assert await everything(client, "old") == {}
    assert await everything(client, "old-2") == kept
    assert (await client.jetstream().stream_info("SANDWICH_bot")).state.messages == events.state.messages
    assert [one.group for one in await list_groups(client, "bot")] == ["old-2"]
    with pytest.raises(NotFound, match=r"no consumer group old \(did you mean old-2\?\)"):
        await remove_group(client, "bot", "old")
    if not ordered:
        assert await take(Consumer(server.url, app="bot", group="old", start="all"), 3) == [1, 2, 3]


async def test_a_group_that_workers_read_with_is_not_removed_but_by_force(
    server: EmbeddedNats, publisher: Publisher
) -> None:
    await publisher.events(1)
    handled: list[int] = []
    consumer = Consumer(server.url, app="bot", group="g", start="all")

    @consumer.on_any
    async def handle(event: Event) -> None:
        handled.append(event.data["n"])

    async with running(consumer):
        await until(lambda: handled == [1])
        with pytest.raises(Refused, match="workers read group g of bot now"):
            await remove_group(publisher.client, "bot", "g")
        assert (await remove_group(publisher.client, "bot", "g", force=True)).reads
        # The worker makes it again, behind what it has handled.
        await publisher.events(1)
        await until(lambda: handled == [1, 2])
    assert not (await find_group(publisher.client, "bot", "g")).reads
    await remove_group(publisher.client, "bot", "g")


async def test_frames_in_hand_of_a_worker_that_died_do_not_keep_a_group(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publisher.events(1)
    await create_group(publisher.client, replace(spec("g"), ack_wait_s=0.01))
    reader = await publisher.client.jetstream().pull_subscribe_bind("g", stream="SANDWICH_bot")
    await reader.fetch(1)
    assert (await find_group(publisher.client, "bot", "g")).reads
    with pytest.raises(Refused, match="with 1 frame in hand"):
        await remove_group(publisher.client, "bot", "g")
    monkeypatch.setattr(group_states, "READ_LATELY_S", 0.0)
    async with asyncio.timeout(60):
        while (await find_group(publisher.client, "bot", "g")).reads:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert (await remove_group(publisher.client, "bot", "g")).in_hand == 1


async def test_how_far_behind_a_group_is(server: EmbeddedNats, publisher: Publisher) -> None:
    client = publisher.client
    assert await list_groups(client, "bot") == []
    assert await list_groups(client, "other") == []
    before = time.time()
    await publisher.events(1)
    between = time.time()
    for group, ordered in (("all", False), ("ordered", True)):
        await create_group(client, spec(group, ordered=ordered))
    await create_group(client, GroupSpec(app="bot", group="lane", lane="chat", start="all"))
    await publisher.events(1)
    await publisher.events(1)
    for group, ordered in (("read", False), ("read-ordered", True)):
        # Of three frames the first is handled, and the second in the worker's hand.
        consumer = Consumer(server.url, app="bot", group=group, start="all", ordered=ordered)
        async with consumer:
            assert (await anext(consumer)).data["n"] == 1
            assert (await anext(consumer)).data["n"] == 2
    found = {one.group: one for one in await list_groups(client, "bot")}
    assert {name: (one.lag, one.partitions, one.lane) for name, one in found.items()} == {
        "all": (3, 0, "all"),
        "ordered": (3, 32, "all"),
        "lane": (0, 0, "chat"),
        "read": (2, 0, "all"),
        "read-ordered": (2, 1, "all"),
    }
    for name in ("all", "ordered"):
        assert before - 1 < (found[name].behind_since or 0) <= between + 1
    for name in ("read", "read-ordered"):
        at = found[name].behind_since
        assert at is not None
        assert at > (found["all"].behind_since or 0)
    assert found["lane"].behind_since is None


async def test_a_removal_that_failed_in_the_middle_goes_on(
    server: EmbeddedNats, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create_group(publisher.client, spec("g"))
    await publisher.events(2)
    await fail(server, "g", 2)

    async def silent(*_: object) -> None:
        raise nats.errors.TimeoutError

    with monkeypatch.context() as patch:
        patch.setattr(consumer_groups, "_purge", silent)
        with pytest.raises(Unavailable):
            await remove_group(publisher.client, "bot", "g")
    (left,) = await list_groups(publisher.client, "bot")
    assert (left.group, left.lag, left.dead_letters) == ("g", 0, 2)
    await remove_group(publisher.client, "bot", "g")
    assert await list_groups(publisher.client, "bot") == []


async def test_a_durable_of_another_program_is_removed_without_the_letters_of_others(
    server: EmbeddedNats, publisher: Publisher
) -> None:
    """Its name can be none of a group, as subjects know them."""
    client = publisher.client
    await publisher.events(1)
    await fail(server, "g", 1)
    await client.jetstream().publish("sandwich.bot.dead.*", b"on the literal subject")
    await client.jetstream().pull_subscribe("sandwich.bot.events.>", "Foreign", stream="SANDWICH_bot")
    assert [one.group for one in await list_groups(client, "bot")] == ["Foreign", "g"]
    with pytest.raises(NotFound):
        await remove_group(client, "bot", "*")
    await remove_group(client, "bot", "Foreign")
    (kept,) = await list_groups(client, "bot")
    assert (kept.group, kept.dead_letters) == ("g", 1)


@pytest.fixture
async def operator(tmp_path: Path) -> AsyncIterator[Client]:
    """The operator's user under the documented accounts."""
    async with AccountNats(tmp_path / "nats", {"bot": "g"}) as server:
        client = await nats.connect(server.url, user="operator", password="operator")
        await Publisher(client).make_stream()
        yield client
        await client.close()
        assert server.violations == []


async def test_the_operator_s_user_may_list_and_remove_groups(operator: Client) -> None:
    await create_group(operator, spec("g", ordered=True))
    await Publisher(operator).events(1)
    (found,) = await list_groups(operator, "bot")
    assert (found.lag, found.behind_since is not None) == (1, True)
    async with asyncio.timeout(30):
        await remove_group(operator, "bot", "g")
    assert await list_groups(operator, "bot") == []
