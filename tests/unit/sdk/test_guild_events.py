"""Derived guild events: what each event means, and how a consumer selects them."""

import json
from typing import Any

import msgspec
import pytest

from sandwich_sdk import Consumer, Event
from sandwich_sdk.event_filter import EventFilter
from sandwich_sdk.guild_events import SOURCES, derive, source_types
from sandwich_sdk.testing import FakeCluster

NOT_ADDED: dict[str, Any] = {}
NEITHER = {"lazy": False, "unavailable": False}


def derived(event_type: str, data: Any, extra: Any) -> str | None:
    return derive(event_type, *(msgspec.Raw(json.dumps(each).encode()) for each in (data, extra)))


@pytest.mark.parametrize(
    ("event_type", "data", "extra", "means"),
    [
        ("GUILD_CREATE", {"id": "1"}, NEITHER, "GUILD_JOIN"),
        ("GUILD_CREATE", {"id": "1", "unavailable": False}, NEITHER, None),
        ("GUILD_CREATE", {"id": "1"}, {"lazy": True, "unavailable": False}, None),
        ("GUILD_CREATE", {"id": "1"}, {"lazy": False, "unavailable": True}, "GUILD_AVAILABLE"),
        ("GUILD_CREATE", {"id": "1", "unavailable": False}, {"lazy": True, "unavailable": False}, None),
        ("GUILD_CREATE", {"id": "1", "unavailable": False}, {"lazy": False, "unavailable": True}, "GUILD_AVAILABLE"),
        ("GUILD_CREATE", {"id": "1", "unavailable": False}, {"lazy": True, "unavailable": True}, "GUILD_AVAILABLE"),
        ("GUILD_CREATE", {"id": "1", "unavailable": True}, {"lazy": False, "unavailable": True}, "GUILD_UNAVAILABLE"),
        ("GUILD_CREATE", {"id": "1", "unavailable": True}, {"lazy": True, "unavailable": True}, "GUILD_UNAVAILABLE"),
        ("GUILD_CREATE", {"id": "1", "unavailable": True}, NEITHER, "GUILD_UNAVAILABLE"),
        ("GUILD_DELETE", {"id": "1"}, {"before": {"id": "1"}, **NEITHER}, "GUILD_LEAVE"),
        ("GUILD_DELETE", {"id": "1", "unavailable": True}, {"lazy": False, "unavailable": True}, "GUILD_UNAVAILABLE"),
        ("GUILD_CREATE", {"id": "1"}, NOT_ADDED, "GUILD_JOIN"),
        ("GUILD_CREATE", {"id": "1", "unavailable": False}, NOT_ADDED, None),
        ("GUILD_DELETE", {"id": "1"}, NOT_ADDED, "GUILD_LEAVE"),
        ("GUILD_DELETE", {"id": "1", "unavailable": True}, NOT_ADDED, "GUILD_UNAVAILABLE"),
        ("GUILD_UPDATE", {"id": "1"}, NEITHER, None),
        ("GUILD_CREATE", 7, NEITHER, None),
        ("GUILD_DELETE", {"id": "1"}, [], None),
    ],
)
def test_the_derived_name_follows_from_the_fields_of_discord_and_the_cluster(
    event_type: str, data: Any, extra: Any, means: str | None
) -> None:
    assert derived(event_type, data, extra) == means
    assert means is None or event_type in SOURCES[means]


def test_frames_are_selected_by_the_types_that_derived_names_come_from() -> None:
    assert source_types(["GUILD_JOIN", "A"]) == {"GUILD_JOIN", "GUILD_CREATE", "A"}
    assert source_types([]) == frozenset()
    joins = EventFilter(frozenset({"GUILD_JOIN"}), None)
    assert joins.may_hold(frozenset({"GUILD_CREATE", "B"}))
    assert not joins.may_hold(frozenset({"GUILD_DELETE"}))
    assert EventFilter(None).may_hold(frozenset({"B"}))
    assert not EventFilter(frozenset({"A"}), frozenset({"B"})).may_hold(frozenset({"A"}))


GUILDS = [
    ("GUILD_JOIN", {"id": "join"}),
    ("GUILD_LEAVE", {"id": "leave"}),
    ("GUILD_AVAILABLE", {"id": "back"}),
    ("GUILD_UNAVAILABLE", {"id": "away"}),
]


def filled() -> FakeCluster:
    cluster = FakeCluster()
    cluster.dispatch_many(GUILDS)
    cluster.dispatch("GUILD_CREATE", {"id": "announced", "unavailable": False}, extra={"lazy": True})
    return cluster


async def test_handlers_for_derived_names_receive_them_and_each_handler_receives_an_event_once() -> None:
    cluster = filled()
    consumer = Consumer(app="app")
    seen: list[tuple[str, str, str | None]] = []

    def keep(name: str, *names: str) -> None:
        @consumer.on(*names)
        async def handle(event: Event) -> None:
            seen.append((name, event.data["id"], event.derived))

    keep("create", "GUILD_CREATE")
    keep("joins", "GUILD_JOIN")
    keep("both", "GUILD_CREATE", "GUILD_JOIN", "GUILD_UNAVAILABLE")
    await cluster.run(consumer)
    assert seen == [
        ("create", "join", "GUILD_JOIN"), ("both", "join", "GUILD_JOIN"), ("joins", "join", "GUILD_JOIN"),
        ("create", "back", "GUILD_AVAILABLE"), ("both", "back", "GUILD_AVAILABLE"),
        ("both", "away", "GUILD_UNAVAILABLE"),
        ("create", "announced", None), ("both", "announced", None),
    ]  # fmt: skip


async def test_a_loop_over_derived_names_yields_those_events_with_their_own_type_and_id() -> None:
    cluster = filled()
    async with Consumer(app="app", source=cluster, types=["GUILD_JOIN", "GUILD_LEAVE"]) as consumer:
        seen = [(event.type, event.derived, event.data["id"], event.id) async for event in consumer]
    ids = cluster.handled[:2]
    assert seen == [
        ("GUILD_CREATE", "GUILD_JOIN", "join", ids[0]),
        ("GUILD_DELETE", "GUILD_LEAVE", "leave", ids[1]),
    ]
    assert len(cluster.handled) == 5


async def test_types_and_handlers_limit_each_other_by_either_name() -> None:
    seen: list[str] = []
    for types in (["GUILD_CREATE"], ["GUILD_JOIN"], ["GUILD_DELETE", "GUILD_AVAILABLE"]):
        consumer = Consumer(app="app", types=types)

        @consumer.on("GUILD_JOIN", "GUILD_CREATE")
        async def handle(event: Event) -> None:
            seen.append(event.data["id"])

        await filled().run(consumer)
        seen.append("|")
    assert seen == ["join", "back", "announced", "|", "join", "|", "back", "|"]
