"""One application's configuration: read, and changed as `sandwich app set` does it."""

import pytest

from sandwich_coordinator.cli.changes import change_lines, parse_changes
from sandwich_coordinator.cli.errors import CommandError, command_error
from sandwich_coordinator.operations.applications import AppPlan, change_app, plan_change, read_app
from sandwich_coordinator.operations.changes import AppChange
from sandwich_coordinator.operations.errors import Conflict, Invalid, OperationError, Refused
from sandwich_coordinator.store.base import Put
from sandwich_coordinator.store.keys import Keys
from sandwich_coordinator.types import AppRecord, CacheSpec, EventsSpec, LaneSpec, PrefixSpec
from tests.support.interfering_store import InterferingStore

APP = AppRecord(app="a", token="sealed:x", token_hash="h", intents=513, presence={"status": "dnd", "since": None})


def change(*changes: str, record: AppRecord = APP, others: dict[str, AppRecord] | None = None) -> AppPlan:
    return plan_change(record, parse_changes(changes), others or {})


def test_what_is_not_named_stays_and_each_change_is_reported() -> None:
    edit = change("events.ignore=[typing_start]", "cache.presences=true", "cache.messages={per_channel: 5, ttl: 10m}")
    assert edit.record == AppRecord(
        app="a",
        token="sealed:x",
        token_hash="h",
        intents=513,
        presence={"status": "dnd", "afk": False, "activities": [], "since": None},
        events=EventsSpec(ignore=["TYPING_START"]),
        cache=CacheSpec(presences=True, messages_per_channel=5, messages_ttl_s=600),
    )
    assert AppChange("a", "events.ignore", [], ["TYPING_START"]) in edit.changes
    assert "~ application a: events.ignore: [] -> ['TYPING_START']" in change_lines(edit.changes)
    assert [warning.path for warning in edit.warnings] == ["cache.presences", "cache.messages"]


def test_everything_survives_a_change_of_something_else() -> None:
    full = AppRecord(
        app="a",
        token="t",
        token_hash="h",
        intents=33281,
        cache=CacheSpec(namespace="shared", members=False, messages_per_channel=9),
        events=EventsSpec(
            cache_only=["MESSAGE_UPDATE"],
            ignore_bots=True,
            prefixes=PrefixSpec(fallback="!", mention=False),
            lanes={"m": LaneSpec(types=["MESSAGE_*"], max_age_s=90.0)},
        ),
    )
    edit = change("paused=true", record=full)
    assert edit.changes == (AppChange("a", "paused", False, True),)
    assert change_lines(edit.changes) == ["~ application a: paused: False -> True"]
    assert change("paused=false", record=full).changes == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["events.ignor=[X]"], "apps.a.events.ignor: unknown key (did you mean ignore?)"),
        (["token=abc"], "token is not given as a value"),
        (["nonsense"], "write it as KEY=VALUE"),
        (["events.ignore=[A"], "events.ignore: the value is not valid YAML"),
        (["events.ignore=[CHANNEL_UPDATE]"], "what is cached of channels becomes wrong"),
        (["cache.namespace=Shared"], "apps.a.cache.namespace: must be 1 to 32 characters"),
        (["cache.namespace=b", "cache.users=false"], "apps.b.cache.users: is True here and False for 'a'"),
    ],
)
def test_a_mistake_is_named_and_nothing_changes(changes: list[str], message: str) -> None:
    with pytest.raises((CommandError, OperationError)) as caught:
        change(*changes, others={"b": AppRecord(app="b", token="u", token_hash="i", intents=1)})
    error = caught.value
    ended = command_error(error) if isinstance(error, OperationError) else error
    assert isinstance(ended, CommandError)
    assert message in str(ended)
    assert ended.code == 1


KEYS = Keys()
BARE = AppRecord(app="a", token="sealed:x", token_hash="h", intents=513)


async def stored() -> InterferingStore:
    store = InterferingStore()
    await store.txn([], [Put(KEYS.app("a"), BARE.encode())])
    return store


async def test_a_change_is_written_and_a_dry_run_is_not() -> None:
    store = await stored()
    planned = await change_app(store, KEYS, "a", {("paused",): True}, dry_run=True)
    assert planned.changes == (AppChange("a", "paused", False, True),)
    assert (await read_app(store, KEYS, "a")).paused is False
    await change_app(store, KEYS, "a", {("paused",): True})
    assert (await read_app(store, KEYS, "a")).paused is True


async def test_of_two_operators_the_second_is_refused() -> None:
    store = await stored()
    store.other = Put(KEYS.app("a"), BARE.encode())
    with pytest.raises(Conflict, match="another operator"):
        await change_app(store, KEYS, "a", {("paused",): True})
    assert (await read_app(store, KEYS, "a")).paused is False


async def test_a_token_is_not_changed_in_place_and_a_damaged_record_is_named() -> None:
    store = await stored()
    with pytest.raises(Invalid, match="token is not given as a value"):
        await change_app(store, KEYS, "a", {("token",): "x"})
    await store.txn([], [Put(KEYS.app("a"), b"{")])
    with pytest.raises(Refused, match="damaged"):
        await read_app(store, KEYS, "a")
