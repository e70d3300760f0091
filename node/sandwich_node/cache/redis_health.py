"""Problems that Redis reports in INFO. Pure.

Source: https://redis.io/docs/latest/commands/info/. A field that a server does not have counts as healthy.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from sandwich_coordinator.findings import Finding

NEARLY_FULL = 0.9
MIB = 1024 * 1024


def redis_findings(servers: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    """The problems found. `servers`: INFO as redis-py decodes it, by the server's name; "" for a single server."""
    found = []
    for name, info in sorted(servers.items()):
        who = f"Redis at {name}" if name else "Redis"
        found += [Finding(f"{who} {text}", blocks) for text, blocks in _of_server(info)]
    return found


def _of_server(info: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    if _number(info, "loading"):
        yield "still loads its data from disk: nothing is cached until then", True
    if info.get("role") == "slave":
        writable = info.get("slave_read_only") == 0
        yield (
            "is a replica: what is written there is lost with its next synchronisation; name the master in redis.url"
            if writable
            else "is a read-only replica: nothing is cached; name the master in redis.url",
            not writable,
        )
    yield from _memory(info)
    yield from _disk(info)
    clients, limit = _number(info, "connected_clients"), _number(info, "maxclients")
    if limit and clients >= NEARLY_FULL * limit:
        yield f"has {clients} connections of {limit} it takes: raise maxclients", False


def _memory(info: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    limit, policy = _number(info, "maxmemory"), str(info.get("maxmemory_policy", "noeviction"))
    if not limit:
        return
    # Memory that does not count (buffers to replicas) never makes Redis refuse a write.
    used = _number(info, "used_memory") - _number(info, "mem_not_counted_for_evict")
    figures = f"{used / MIB:.0f} MiB of {limit / MIB:.0f} used"
    if policy != "noeviction":
        gone = _number(info, "evicted_keys")
        yield (
            f"evicts keys when it is full (maxmemory-policy {policy}; {gone} evicted, {figures}): the cache loses "
            "entries without a trace; set maxmemory-policy noeviction",
            False,
        )
    elif used >= limit:
        yield f"is full ({figures}) and refuses writes: raise maxmemory, or cache less", True
    elif used >= NEARLY_FULL * limit:
        yield f"is nearly full ({figures}): raise maxmemory, or cache less", False


def _disk(info: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
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
        yield f"could not store {', '.join(failed)}: it may refuse writes; see its log and the space on its disk", False


def _number(info: Mapping[str, Any], field: str) -> int:
    value = info.get(field)
    return int(value) if isinstance(value, int | float) else 0
