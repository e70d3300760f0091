"""A shard's guild count in its session record: automatic shard counts follow it."""

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from sandwich_coordinator.ids import ShardId
from sandwich_coordinator.types import SessionRecord
from sandwich_node import ipc
from sandwich_node.gateway import effects as fx
from sandwich_node.shards.failures import LINES_MAX, WINDOW_S, FailureLog
from sandwich_node.shards.resume import LostEvents
from sandwich_node.shards.session_reports import GUILDS_EVERY_S, SessionReports

SHARD = ShardId("bot", 0, 0)
EPOCH_S = 1_800_000_000.0
RECORD = SessionRecord(session_id="s", resume_url="u", intents=1, count=1, first_seq=1, token_hash="h", guilds=1000)


class Shard:
    """A shard with a resumed session, its clock, and what its agent is sent."""

    def __init__(self) -> None:
        self.now = 5000.0
        self.sent: list[Any] = []
        self.guilds = SimpleNamespace(count=1000)
        start: Any = SimpleNamespace(key=SHARD, session=RECORD)
        services: Any = SimpleNamespace(
            send=self.sent.append, failures=FailureLog(), clock=lambda: self.now, wall=lambda: self.now + EPOCH_S
        )
        intake: Any = SimpleNamespace(guilds=self.guilds, session_id="s", bot="1")
        self.gaps: list[dict[str, Any]] = []
        publisher: Any = SimpleNamespace(gap=lambda **gap: self.gaps.append(gap))
        self.intake = intake
        self.reports = SessionReports(start, services, intake, publisher)

    def after(self, seconds: float, guilds: int) -> list[Any]:
        """What is sent at a heartbeat's answer, so much later and with so many guilds."""
        self.now += seconds
        self.guilds.count = guilds
        self.sent.clear()
        self.reports.observe(fx.LatencyMeasured(0.04))
        return list(self.sent)


def saved(guilds: int) -> list[ipc.SessionSaved]:
    return [ipc.SessionSaved(SHARD, msgspec.structs.replace(RECORD, guilds=guilds), "1", "")]


@pytest.mark.parametrize(("guilds", "is_saved"), [(1030, False), (1031, True), (970, False), (969, True), (0, True)])
def test_a_guild_count_that_drifted_by_more_than_three_percent_is_saved(guilds: int, is_saved: bool) -> None:
    assert Shard().after(GUILDS_EVERY_S, guilds) == (saved(guilds) if is_saved else [])


def test_the_guild_count_is_saved_at_most_once_in_ten_minutes() -> None:
    shard = Shard()
    assert shard.after(GUILDS_EVERY_S - 1.0, 2000) == []
    assert shard.after(1.0, 2000) == saved(2000)
    assert shard.after(41.0, 3000) == []
    assert shard.after(GUILDS_EVERY_S - 41.0, 3000) == saved(3000)
    assert shard.after(GUILDS_EVERY_S, 3010) == []


def test_the_count_of_a_session_that_is_not_the_recorded_one_is_not_saved() -> None:
    shard = Shard()
    shard.intake.session_id = "another"
    assert shard.after(GUILDS_EVERY_S, 2000) == []


def test_a_loss_is_dated_by_the_wall_clock_and_reported_to_the_agent() -> None:
    shard = Shard()
    shard.reports.lost(LostEvents("5f0c", 41, "Discord ended the session"))
    (gap,) = shard.gaps
    assert (gap["session"], gap["last_seq"]) == ("5f0c", 41)
    assert msgspec.json.decode(gap["note"])["at"] == EPOCH_S + 5000.0
    assert shard.sent == [ipc.EventsLost(key=SHARD, session="5f0c", last_seq=41, reason="Discord ended the session")]


def test_a_loss_of_a_shard_whose_output_is_withheld_goes_to_whoever_withholds_it() -> None:
    shard, withheld = Shard(), list[LostEvents]()
    shard.reports.withheld = withheld.append
    lost = LostEvents("5f0c", 41, "Discord ended the session")
    shard.reports.lost(lost)
    assert (withheld, shard.gaps, shard.sent) == ([lost], [], [])


def test_failures_to_connect_are_logged_within_the_bound_of_their_worker(caplog: pytest.LogCaptureFixture) -> None:
    shard = Shard()
    for _ in range(LINES_MAX + 5):
        shard.reports.observe(fx.GatewayUnreachable("wss://g", "refused"))
    assert len(caplog.records) == LINES_MAX
    shard.now += WINDOW_S
    shard.reports.observe(fx.GatewayUnreachable("wss://g", "refused"))
    assert caplog.records[-1].getMessage().endswith("(5 more such lines left out before)")
    assert len(shard.sent) == LINES_MAX + 6, "the agent is sent all of them"
