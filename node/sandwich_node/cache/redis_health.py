"""Problems that Redis reports in INFO. Pure.

Source: https://redis.io/docs/latest/commands/info/. A field that a server does not have counts as healthy.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from sandwich_coordinator.problems import Code, Problem, problem

NEARLY_FULL = 0.9
MIB = 1024 * 1024


_Found = Iterator[tuple[Code, str]]


def redis_problems(servers: Mapping[str, Mapping[str, Any]]) -> list[Problem]:
    """The problems found. `servers`: INFO as redis-py decodes it, by the server's name; "" for a single server."""
    found = []
    for name, info in sorted(servers.items()):
        who, subject = (f"Redis at {name}", f"redis/{name}") if name else ("Redis", "redis")
        found += [problem(code, subject, f"{who} {words}") for code, words in _of_server(info)]
    return found


def _of_server(info: Mapping[str, Any]) -> _Found:
    if _number(info, "loading"):
        yield Code.REDIS_LOADING, "still loads its data from disk"
    if info.get("role") == "slave":
        if info.get("slave_read_only") == 0:
            yield Code.REDIS_REPLICA, "is a replica, and what is written there is lost with its next synchronisation"
        else:
            yield Code.REDIS_READ_ONLY, "is a read-only replica, so nothing is cached"
    yield from _memory(info)
    yield from _disk(info)
    clients, limit = _number(info, "connected_clients"), _number(info, "maxclients")
    if limit and clients >= NEARLY_FULL * limit:
        yield Code.REDIS_CONNECTIONS, f"has {clients} connections of the {limit} that it takes"


def _memory(info: Mapping[str, Any]) -> _Found:
    limit, policy = _number(info, "maxmemory"), str(info.get("maxmemory_policy", "noeviction"))
    if not limit:
        return
    # Memory that does not count (buffers to replicas) never makes Redis refuse a write.
    used = _number(info, "used_memory") - _number(info, "mem_not_counted_for_evict")
    figures = f"{used / MIB:.0f} MiB of {limit / MIB:.0f} used"
    if policy != "noeviction":
        gone = _number(info, "evicted_keys")
        yield (
            Code.REDIS_EVICTS,
            f"evicts keys when it is full (maxmemory-policy {policy}; {gone} evicted, {figures}), so the cache loses "
            "entries without a trace",
        )
    elif used >= limit:
        yield Code.REDIS_FULL, f"is full ({figures}) and refuses writes"
    elif used >= NEARLY_FULL * limit:
        yield Code.REDIS_NEARLY_FULL, f"is nearly full ({figures})"


def _disk(info: Mapping[str, Any]) -> _Found:
    failed = [
        what
        for field, what in (
            ("rdb_last_bgsave_status", "its last snapshot (rdb_last_bgsave_status)"),
            ("aof_last_write_status", "its last write to the append-only file (aof_last_write_status)"),
            ("aof_last_bgrewrite_status", "its last rewrite of the append-only file (aof_last_bgrewrite_status)"),
        )
        if info.get(field, "ok") != "ok"
    ]
    if failed:
        yield Code.REDIS_NOT_SAVED, f"could not store {', '.join(failed)}, and may refuse writes"


def _number(info: Mapping[str, Any], field: str) -> int:
    value = info.get(field)
    return int(value) if isinstance(value, int | float) else 0
