"""What agent and workers say to each other survives the way, each message as one line."""

import msgspec
import pytest

from sandwich_coordinator.ids import ShardId
from sandwich_coordinator.problems import Code
from sandwich_coordinator.types import CacheSpec, EventsSpec, InvitesSpec, SessionRecord
from sandwich_node import ipc

SHARD = ShardId("bot", 3, 7)
SESSION = SessionRecord(session_id="s", resume_url="u", intents=1, count=8, first_seq=1, token_hash="h", guilds=2)
START = ipc.StartShard(
    key=SHARD,
    run=1,
    fence=99,
    count=8,
    route="bot",
    bot="1",
    token="secret\nwith a line end",
    token_hash="h",
    gateway_url="wss://gateway.discord.gg",
    intents=1,
    compression="zstd-stream",
    large_threshold=50,
    presence={"status": "online"},
    session=SESSION,
    stream_max_age_s=3600.0,
    stream_max_bytes=1,
    stream_replicas=3,
    options=ipc.ShardOptions(cache=CacheSpec(), events=EventsSpec(), invites=InvitesSpec()),
    previous=ipc.PreviousGroup(group=2, count=4, ids="0-3"),
)


@pytest.mark.parametrize(
    "message",
    [START, ipc.StopShard(SHARD, "it moves"), ipc.LeaseHeld(None), ipc.AppsChanged({"bot": ipc.AppInfo(group=3)})],
    ids=lambda message: type(message).__name__,
)
def test_a_worker_reads_what_its_agent_wrote(message: ipc.ToWorker) -> None:
    line = ipc.line_of(message)
    assert line.index(b"\n") == len(line) - 1
    assert ipc.read_as_worker(line) == message


@pytest.mark.parametrize(
    "message",
    [
        ipc.ShardStopped(SHARD, 1, "failed", "4004", close_code=4004),
        ipc.SessionSaved(SHARD, SESSION, "1", "Bot\n"),
        ipc.WorkerWaiting("NATS does not answer", Code.NATS_UNREACHABLE),
        ipc.WorkerStats(1, 0.5, [ipc.ShardNumbers(key=SHARD, unreadable={"other": 2}, cache=ipc.CacheNumbers())]),
    ],
    ids=lambda message: type(message).__name__,
)
def test_an_agent_reads_what_its_worker_wrote(message: ipc.ToAgent) -> None:
    line = ipc.line_of(message)
    assert line.index(b"\n") == len(line) - 1
    assert ipc.read_as_agent(line) == message


def test_a_message_for_the_other_side_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        ipc.read_as_worker(ipc.line_of(ipc.WorkerReady()))
    with pytest.raises(msgspec.ValidationError):
        ipc.read_as_agent(ipc.line_of(ipc.Shutdown()))


def test_no_repr_of_a_message_has_a_token() -> None:
    assert "secret" not in repr(START)
