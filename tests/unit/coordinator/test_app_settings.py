"""`sandwich app set`: changes of one application's configuration."""

import pytest

from sandwich_coordinator.cli.context import CommandError
from sandwich_coordinator.cli.settings import AppEdit, edited, parse_changes
from sandwich_coordinator.types import AppRecord, CacheSpec, EventsSpec, LaneSpec, PrefixSpec

APP = AppRecord(app="a", token="sealed:x", token_hash="h", intents=513, presence={"status": "dnd", "since": None})


def change(*changes: str, record: AppRecord = APP, others: dict[str, AppRecord] | None = None) -> AppEdit:
    return edited(record, parse_changes(changes), others or {})


def test_what_is_not_named_stays_and_what_changed_is_told() -> None:
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
    assert "~ application a: events.ignore: [] -> ['TYPING_START']" in edit.lines
    assert [warning.split(":")[0] for warning in edit.warnings] == ["cache.presences", "cache.messages"]


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
    assert edit.lines == ("~ application a: paused: False -> True",)
    assert change("paused=false", record=full).lines == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["events.ignor=[X]"], "apps.a.events.ignor: unknown key (did you mean ignore?)"),
        (["token=abc"], "token is not changed here"),
        (["nonsense"], "write it as KEY=VALUE"),
        (["events.ignore=[A"], "events.ignore: the value is not valid YAML"),
        (["events.ignore=[CHANNEL_UPDATE]"], "what is cached of channels becomes wrong"),
        (["cache.namespace=Shared"], "apps.a.cache.namespace: must be 1 to 32 characters"),
        (["cache.namespace=b", "cache.users=false"], "apps.b.cache.users: is True here and False for 'a'"),
    ],
)
def test_a_mistake_is_named_and_nothing_changes(changes: list[str], message: str) -> None:
    with pytest.raises(CommandError) as caught:
        change(*changes, others={"b": AppRecord(app="b", token="u", token_hash="i", intents=1)})
    assert message in str(caught.value)
    assert caught.value.code == 1
