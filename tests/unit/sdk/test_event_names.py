"""An unknown event name is reported when the consumer is created, not by events that never arrive."""

import pytest

from sandwich_coordinator import event_names as coordinator
from sandwich_node.shards.invite_tracking import MEMBER_INVITED
from sandwich_sdk import Consumer, Event
from sandwich_sdk.event_names import KNOWN, name_warning
from sandwich_sdk.guild_events import SOURCES


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("MESAGE_UPDATE", "MESSAGE_UPDATE"),
        ("MESSAGE_REATCION_ADD", "MESSAGE_REACTION_ADD"),
        ("GUILD_JOINED", "GUILD_JOIN"),
        ("GUILDS_CREATE", "GUILD_CREATE"),
        ("SANDWICH_MEMBER_INVITE", "SANDWICH_MEMBER_INVITED"),
        ("message_create", "MESSAGE_CREATE"),
        ("Message-Create", "MESSAGE_CREATE"),
        (" MESSAGE_CREATE", "MESSAGE_CREATE"),
    ],
)
def test_a_misspelled_name_warns_with_the_nearest_one(name: str, near: str, caplog: pytest.LogCaptureFixture) -> None:
    consumer = Consumer(app="app")

    @consumer.on("MESSAGE_CREATE", name)
    async def handle(event: Event) -> None: ...

    Consumer(app="app", types=["MESSAGE_CREATE", name])
    assert len(caplog.messages) == 2
    assert all(f"did you mean {near}?" in message for message in caplog.messages)


@pytest.mark.parametrize("name", ["on_message", "", "A" * 65, "A.B", "MESSAGE_*"])
def test_a_name_that_no_event_can_have_warns(name: str) -> None:
    assert "names consist of A-Z, 0-9 and '_'" in (name_warning(name) or "")


@pytest.mark.parametrize("name", [*sorted(KNOWN), "SONG", "SONG_ENDED", "MY_EVENT", "A"])
def test_a_known_name_and_one_that_resembles_none_give_no_warning(name: str) -> None:
    assert name_warning(name) is None


def test_the_sdk_knows_the_names_that_the_cluster_knows() -> None:
    assert coordinator.DOCUMENTED | SOURCES.keys() | {MEMBER_INVITED} == KNOWN
