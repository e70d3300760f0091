"""When a shard's cache lacks something, and what a resync repeats until it lacks nothing."""

from sandwich_coordinator.ids import Fence, ShardId
from sandwich_coordinator.types import CacheSpec
from sandwich_node.cache.batch import Batch, EventOps
from sandwich_node.cache.completeness import RECORDED_BYTES_MAX, Completeness
from sandwich_node.cache.context import Op
from sandwich_node.cache.replies import Applied
from sandwich_node.cache.settings import CacheWriter

WRITER = CacheWriter(shard=ShardId("bot", 1, 0), fence=Fence(9), bot="1", intents=1, settings=CacheSpec())
NEW = Applied(is_first=True)


class Cache:
    """The cache of one shard, and what was said when it began or ceased to lack something."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.completeness = Completeness(self.said.append)

    @property
    def lacks(self) -> str:
        return self.completeness.lacks

    def wrote(
        self, seq: int, *ops: Op, applied: Applied | None = None, starts_session: bool = False, size: int = 1
    ) -> None:
        batch = Batch(writer=WRITER, session="aa", confirmed=0, events=(EventOps(seq, ops, size),))
        self.completeness.wrote(batch, applied or Applied(stood=seq - 1), starts_session=starts_session)


def test_the_first_reason_counts_until_a_session_begins() -> None:
    cache = Cache()
    cache.completeness.lost("an event could not be read", is_urgent=False)
    assert not cache.completeness.is_urgent
    cache.completeness.lost("Redis was away")
    assert cache.completeness.is_urgent
    assert cache.said == ["an event could not be read"]
    cache.wrote(1, applied=NEW, starts_session=True)
    assert (cache.lacks, cache.completeness.is_urgent, cache.said[1:]) == ("", False, [""])


def test_a_redis_without_a_record_of_the_session_was_emptied() -> None:
    cache = Cache()
    cache.wrote(5, applied=NEW)
    assert "emptied" in cache.lacks


def test_a_newer_owners_record_is_no_loss() -> None:
    cache = Cache()
    cache.wrote(5, applied=Applied(is_first=True, newer=12))
    assert cache.lacks == ""


def test_a_record_that_went_back_was_lost() -> None:
    cache = Cache()
    cache.wrote(5, applied=Applied(stood=3))
    cache.wrote(8, applied=Applied(stood=5))
    assert cache.lacks == ""
    cache.wrote(9, applied=Applied(stood=7))
    assert cache.lacks == "Redis lost what was written last"


def test_a_resync_repeats_what_changed_in_a_guild_since_it_began() -> None:
    cache, rename = Cache(), ("guild_patch", "7", "name")
    cache.completeness.lost("Redis was away")
    cache.wrote(1, ("channel_set", "7", "before"))
    cache.completeness.begin_resync()
    cache.wrote(2, rename, ("user_set", "7", "a user is of no guild"), ("channel_set", "8", "c"))
    cache.wrote(3, ("ready", "", "of no guild"))
    assert cache.completeness.since_resync("7") == cache.completeness.since_resync("7") == (rename,)
    assert cache.completeness.since_resync("9") == ()
    assert cache.completeness.end_resync(complete=True)
    assert (cache.lacks, cache.completeness.is_recording, cache.completeness.since_resync("7")) == ("", False, ())


def test_a_resync_that_did_not_finish_completes_nothing() -> None:
    cache = Cache()
    cache.completeness.lost("Redis was away")
    cache.completeness.begin_resync()
    assert not cache.completeness.end_resync(complete=False)
    assert cache.lacks == "Redis was away"


def test_a_resync_with_an_unreadable_guild_leaves_the_cache_lacking_that() -> None:
    cache = Cache()
    cache.completeness.begin_resync()
    cache.completeness.could_not_read_guild()
    assert cache.completeness.end_resync(complete=True)
    assert (cache.lacks, cache.completeness.is_urgent) == ("a guild could not be read", False)
    cache.completeness.begin_resync()
    assert cache.completeness.end_resync(complete=True)
    assert cache.lacks == "", "the next one read them all"


def test_a_resync_ends_without_its_record() -> None:
    """That is too large, was dropped, or may have been lost with what Redis lost."""
    for ends in ("too large", "given up", "lost", "new session"):
        cache = Cache()
        cache.wrote(1, applied=Applied(stood=0))
        cache.completeness.begin_resync()
        match ends:
            case "too large":
                cache.wrote(2, ("channel_set", "7", "x"), size=RECORDED_BYTES_MAX)
                assert cache.completeness.is_recording
                cache.wrote(3, ("channel_set", "7", "x"))
            case "given up":
                cache.completeness.gave_up("too much waits")
            case "lost":
                cache.wrote(2, applied=NEW)
            case _:
                cache.wrote(2, applied=NEW, starts_session=True)
        assert not cache.completeness.is_recording, ends
        assert not cache.completeness.end_resync(complete=True), ends


def test_what_redis_lost_before_anything_was_written_here_is_in_the_resync() -> None:
    cache = Cache()
    cache.completeness.begin_resync()
    cache.wrote(1, applied=NEW)
    assert cache.completeness.is_recording
