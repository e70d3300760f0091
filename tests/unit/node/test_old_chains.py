"""What each shard of the next group knows of the old group's chains, from their frames one by one."""

import json

import pytest
import zstandard

from sandwich_coordinator.ids import Fence
from sandwich_node.events.identity import identity
from sandwich_node.publishing.chain import Checkpoint
from sandwich_node.publishing.log import Extent, StoredFrame
from sandwich_node.publishing.old_chains import LOST_WAIT_S, Follower, FrameReader, old_chains
from sandwich_sdk.wire.headers import FrameHeaders


def line(guild: int, number: int) -> bytes:
    data = {"id": str(number), "channel_id": "1", "guild_id": str(guild)}
    event = {"t": "MESSAGE_CREATE", "s": number, "op": 0, "d": data, "__sandwich": {"id": f"aa:{number}"}}
    return json.dumps(event).encode() + b"\n"


def frame(
    seq: int,
    shard: int,
    payload: bytes = b"",
    *,
    count: int = 1,
    kind: str = "",
    session: str = "aa",
    lane: str = "all",
    part: tuple[int, int] | None = None,
) -> StoredFrame:
    headers = FrameHeaders(session=session, first_seq=1, last_seq=9, count=count, epoch=30, kind=kind, part=part)
    return StoredFrame(seq, f"sandwich.bot.events.{lane}.1.{shard}", headers, payload)


def events(*lines: bytes) -> bytes:
    return zstandard.compress(b"".join(lines))


def follower(shard: int = 0, *, after: int = 0, chains: frozenset[int] = frozenset({0, 2})) -> Follower:
    """A shard of an upcoming group of two, that replaces a group of four."""
    return Follower(shard, 2, 4, chains, after)


def known(one: Follower, guild: int, last: int) -> list[int]:
    texts = {n: json.dumps({"id": str(n), "channel_id": "1", "guild_id": str(guild)}).encode() for n in range(last + 1)}
    numbers = {identity("MESSAGE_CREATE", text): n for n, text in texts.items()}
    return [numbers[found] for found in one.published]


def test_each_follower_knows_its_own_guilds_of_the_frames_behind_its_place() -> None:
    reader, early, late, other = FrameReader(), follower(), follower(after=11), follower(1, chains=frozenset({1, 3}))
    for seq in (10, 11, 12):
        reader.take(frame(seq, 2, events(line(2 << 22, seq))), [early, late, other])
    assert known(early, 2 << 22, 12) == [10, 11, 12]
    assert known(late, 2 << 22, 12) == [12]
    assert list(other.published) == []
    assert [one.read_to for one in (early, late, other)] == [12, 12, 12]


def test_the_session_of_each_event_is_known_and_where_one_was_lost() -> None:
    reader, one = FrameReader(), follower()
    reader.take(frame(1, 0, events(line(0, 1), line(0, 2)), count=2), [one])
    reader.take(frame(2, 0, kind="gap", count=0), [one])
    reader.take(frame(3, 0, events(line(0, 3)), session="bb"), [one])
    assert (list(one.sessions), one.gaps) == (["aa", "aa", "bb"], {0})


def test_the_first_end_of_a_chain_is_its_end() -> None:
    reader, one = FrameReader(), follower()
    reader.take(frame(7, 2, kind="end", count=0), [one])
    reader.take(frame(8, 2, kind="end", count=0, lane="quiet"), [one])
    assert one.ends[2].stream_seq == 7
    assert one.ends[2].checkpoint == Checkpoint("aa", 9, False, fence=Fence(30))
    assert one.open_chains == {0}
    assert not one.is_over(0.0)
    reader.take(frame(9, 0, kind="end", count=0), [one])
    assert one.is_over(0.0)


def test_an_event_in_parts_is_known_with_its_last_part() -> None:
    reader, one = FrameReader(), follower()
    whole = events(line(0, 1))
    pieces = whole[:5], whole[5:9], whole[9:]
    for number, piece in enumerate(pieces, start=1):
        assert list(one.published) == []
        reader.take(frame(number, 0, piece, part=(number, 3)), [one])
    assert known(one, 0, 1) == [1]
    reader.take(frame(20, 0, pieces[1], part=(2, 3)), [one])
    reader.take(frame(21, 0, pieces[2], part=(3, 3)), [one])
    assert (known(one, 0, 1), reader.unreadable) == ([1], 0), "its first part is older than the hold"


def test_what_cannot_be_read_is_counted_and_the_rest_is_known() -> None:
    reader, one = FrameReader(), follower()
    reader.take(frame(1, 0, b"not zstd"), [one])
    reader.take(frame(2, 0, events(b"not JSON\n", line(0, 4)), count=2), [one])
    assert (reader.unreadable, known(one, 0, 4)) == (2, [4])


@pytest.mark.parametrize(
    ("extent", "why", "read_to"),
    [
        (Extent(1, 40), "", 30),
        (Extent(31, 40), "", 30),
        (Extent(33, 40), "frames of the old group were removed", 32),
        (Extent(31, 30), "", 30),
        (Extent(1, 12), "the stream was deleted and made again", 0),
    ],
)
def test_frames_that_the_stream_lost_before_they_were_read(extent: Extent, why: str, read_to: int) -> None:
    one = follower(after=30)
    found = one.missed(extent)
    assert (found.startswith(why), bool(found), one.read_to) == (True, bool(why), read_to)
    assert one.missed(extent) == "", "it goes on behind what is lost"


def test_after_a_loss_the_ends_are_awaited_for_a_while_from_the_first_loss_on() -> None:
    one = follower()
    assert one.lost("gone", 100.0)
    assert not one.lost("gone again", 120.0)
    assert one.trouble.startswith("gone:")
    assert not one.is_over(100.0 + LOST_WAIT_S - 0.1)
    assert one.is_over(100.0 + LOST_WAIT_S)


@pytest.mark.parametrize(
    ("shard", "count", "old_count", "found"),
    [(0, 2, 4, {0, 2}), (1, 2, 4, {1, 3}), (3, 8, 4, {3}), (2, 3, 4, {0, 1, 2, 3}), (0, 2, 0, set())],
)
def test_the_old_shards_with_guilds_in_common(shard: int, count: int, old_count: int, found: set[int]) -> None:
    assert old_chains(shard, count, old_count, range(old_count)) == found
