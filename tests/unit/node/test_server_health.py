"""What Redis and JetStream report about themselves, as problems."""

from typing import Any

import msgspec
import pytest

from sandwich_coordinator.problems import Severity
from sandwich_node.cache.redis_health import MIB, redis_problems
from sandwich_node.publishing.jetstream_health import account_problems, stream_problems

REDIS = {
    "redis_version": "6.2.14", "role": "master", "maxmemory": 100 * MIB, "maxmemory_policy": "noeviction",
    "used_memory": 50 * MIB, "loading": 0, "rdb_last_bgsave_status": "ok", "aof_enabled": 0,
    "aof_last_write_status": "ok", "aof_last_bgrewrite_status": "ok", "evicted_keys": 0, "maxclients": 10000,
    "connected_clients": 1, "mem_not_counted_for_evict": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "words", "blocks"),
    [
        ({"used_memory": 91 * MIB}, "nearly full (91 MiB of 100 used)", False),
        ({"used_memory": 100 * MIB}, "is full", True),
        ({"maxmemory_policy": "allkeys-lru", "evicted_keys": 7}, "maxmemory-policy allkeys-lru; 7 evicted", False),
        ({"maxmemory_policy": "volatile-ttl"}, "evicts keys", False),
        ({"rdb_last_bgsave_status": "err"}, "rdb_last_bgsave_status", False),
        ({"aof_last_write_status": "err"}, "aof_last_write_status", False),
        ({"aof_last_bgrewrite_status": "err"}, "aof_last_bgrewrite_status", False),
        ({"loading": 1}, "loads its data", True),
        ({"role": "slave", "slave_read_only": 1}, "read-only replica", True),
        ({"role": "slave", "slave_read_only": 0}, "is a replica", False),
        ({"connected_clients": 9500}, "raise maxclients", False),
    ],
)
def test_what_redis_reports_about_itself_is_a_problem(fields: dict[str, Any], words: str, blocks: bool) -> None:
    (found,) = redis_problems({"": REDIS | fields})
    assert words in found.text
    assert found.summary.startswith("Redis ")
    assert found.subject == "redis"
    assert (found.severity is Severity.CRITICAL) is blocks


def test_a_healthy_redis_has_no_problem() -> None:
    assert redis_problems({"": REDIS}) == []
    assert redis_problems({"": REDIS | {"maxmemory": 0, "maxmemory_policy": "allkeys-lru"}}) == []
    # What its replicas' buffers take does not count against maxmemory.
    assert redis_problems({"": REDIS | {"used_memory": 120 * MIB, "mem_not_counted_for_evict": 60 * MIB}}) == []
    assert redis_problems({"": {}}) == []
    assert redis_problems({}) == []


def test_a_server_of_a_redis_cluster_is_named() -> None:
    (found,) = redis_problems({"10.0.0.1:6379": REDIS, "10.0.0.2:6379": REDIS | {"loading": 1}})
    assert found.text.startswith("Redis at 10.0.0.2:6379 ")
    assert found.subject == "redis/10.0.0.2:6379"


def account(**fields: Any) -> bytes:
    return msgspec.json.encode({"type": "io.nats.jetstream.api.v1.account_info_response", "storage": 0} | fields)


def stream(*replicas: dict[str, Any], leader: str = "n0", wanted: int = 3, since: str = "12:00:00") -> bytes:
    cluster = {"name": "c", "leader": leader, "leader_since": f"2026-11-29T{since}.464923427Z"}
    info = {"config": {"name": "S", "num_replicas": wanted}, "ts": "2026-11-29T12:00:10.464923427Z"}
    return msgspec.json.encode(info | {"cluster": cluster | {"replicas": list(replicas)}})


GOOD = {"name": "n1", "current": True, "active": 1, "lag": 3}


def test_a_healthy_jetstream_has_no_problem() -> None:
    assert account_problems(account(limits={"max_storage": -1, "max_streams": -1})) == []
    assert account_problems(account(storage=80, limits={"max_storage": 100})) == []
    assert stream_problems("S", stream(GOOD, GOOD)) == []
    assert stream_problems("S", stream(wanted=1)) == []
    assert stream_problems("S", stream(GOOD, {"name": "n2", "current": True, "active": 11_000_000_000})) == []
    assert stream_problems("S", stream(GOOD, {"name": "n2", "active": 2_000_000_000, "lag": 1})) == []
    # The leader is new and has no message from it yet.
    assert stream_problems("S", stream(GOOD, {"name": "n2", "lag": 1}, since="12:00:08")) == []
    assert stream_problems("S", msgspec.json.encode({"config": {"num_replicas": 1}})) == []
    missing = {"error": {"code": 404, "err_code": 10059, "description": "stream not found"}}
    assert stream_problems("S", msgspec.json.encode(missing)) == []
    for damaged in (b"", b"{", b"[]", b"\xff"):
        assert (account_problems(damaged), stream_problems("S", damaged)) == ([], [])


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "meta leader"),
        (account(error={"code": 503, "err_code": 10008, "description": "temporarily unavailable"}), "10008"),
        (account(storage=90, limits={"max_storage": 100}), "storage limit is nearly used up"),
        (account(streams=4, limits={"max_streams": 4}), "no more streams"),
        (account(consumers=9, limits={"max_consumers": 9}), "no more consumers"),
        (account(tiers={"R3": {"storage": 99, "limits": {"max_storage": 100}}}), "storage limit of tier R3"),
    ],
)
def test_what_jetstream_reports_about_the_account_is_a_problem(answer: bytes | None, words: str) -> None:
    (found,) = account_problems(answer)
    assert words in found.text
    assert found.subject == "nats"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "does not answer"),
        (stream(GOOD, {"name": "n2", "offline": True, "lag": 5000}), "lacks replicas (n2 of 3)"),
        (stream(GOOD, {"name": "n2", "active": 10_000_000_000, "lag": 1}), "lacks replicas (n2 of 3)"),
        (stream(GOOD, {"name": "n2", "lag": 1}), "lacks replicas (n2 of 3)"),
        (stream(GOOD), "lacks replicas (1 not placed of 3)"),
        (stream(GOOD, {"name": "n2", "active": 9, "lag": 1000}), "are behind (n2)"),
        (stream(GOOD, GOOD, leader=""), "has no leader"),
        (msgspec.json.encode({"error": {"code": 500, "err_code": 10117, "description": "offline"}}), "offline (10117)"),
    ],
)
def test_what_jetstream_reports_about_a_stream_is_a_problem(answer: bytes | None, words: str) -> None:
    (found,) = stream_problems("S", answer)
    assert words in found.text
    assert found.subject == "nats/S"
