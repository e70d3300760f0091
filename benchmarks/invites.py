"""`python -m benchmarks.invites`: the cost of invite tracking: for an event that it does not concern, and for a burst.

For the burst two bots on the same worker get the same kind. One tracks invites, the other does not; neither caches.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections import Counter
from typing import Any

import msgspec

from benchmarks.__main__ import burst_cost, check_published, spread
from benchmarks.cache import SHARDS, bots_of
from benchmarks.nodes import all_live, node_status
from benchmarks.processes import until
from sandwich_coordinator.types import EventsSpec
from sandwich_node.dev.cluster import dev_cluster
from sandwich_node.events.filters import EventFilter
from sandwich_node.invites.lookup import InviteLookup, LookupCounters
from sandwich_node.shards.intake import ShardIntake

CACHELESS = {"cache": {"enabled": False}}
APPS = {"plain": CACHELESS, "following": CACHELESS | {"invites": {"track": True}}}
CALLS = 50_000
ROUNDS = 8
SAMPLES = {
    "MESSAGE_CREATE": {"id": "1", "channel_id": "2", "content": "x" * 500, "author": {"id": "3"}},
    "GUILD_MEMBER_UPDATE": {"guild_id": "1", "user": {"id": "3", "username": "y" * 300}, "roles": ["4"] * 10},
    "GUILD_ROLE_UPDATE": {"guild_id": "1", "role": {"id": "4", "permissions": "0", "name": "z" * 300}},
}


class Nowhere:
    """A publisher that discards everything, and empty commands."""

    is_waiting = False
    last_seq = 0

    @property
    def buffer(self) -> "Nowhere":
        return self

    def start_session(self, session: str, last_seq: int, *, bot: str) -> None:
        return

    def push(self, raw: bytes, event_type: str, seq: int, **more: Any) -> bool:
        return True


def intake_of(*, follows: bool) -> ShardIntake:
    nowhere: Any = Nowhere()
    intake = ShardIntake(nowhere, nowhere, EventFilter(EventsSpec(), "9"), nowhere, bot="9", guilds=0)
    if follows:
        intake.observer = InviteLookup(
            nowhere,
            LookupCounters(Counter()),
            hold_s=0.3,
            store=None,
            kept=None,
            report_late=lambda _: None,
            caught_up=lambda: None,
        )
    return intake


def measure_event(name: str) -> tuple[float, float]:
    """Nanoseconds per event between a shard's socket and its buffer: without and with tracking."""
    data = json.dumps(SAMPLES[name], separators=(",", ":")).encode()
    raw, d = b'{"t":"%b","s":1,"op":0,"d":%b}' % (name.encode(), data), msgspec.Raw(data)
    best = {False: float("inf"), True: float("inf")}
    intakes = {follows: intake_of(follows=follows) for follows in best}
    for _ in range(ROUNDS):
        for follows, intake in intakes.items():
            dispatch = intake.dispatch
            started = time.perf_counter_ns()
            for _ in range(CALLS):
                dispatch(raw, d, name, 1, "session")
            best[follows] = min(best[follows], (time.perf_counter_ns() - started) / CALLS)
    return best[False], best[True]


async def measure_burst(rounds: int, events: int) -> dict[str, list[float]]:
    """A worker's µs of CPU per event."""
    costs: dict[str, list[float]] = {name: [] for name in APPS}
    async with dev_cluster(bots_of(APPS), nodes=1, rate=0) as cluster:
        await until(lambda: all_live(cluster, SHARDS * len(APPS)))
        await asyncio.sleep(10)
        worker = (await node_status(cluster))["workers"][0]["pid"]
        for _ in range(rounds):
            for name in APPS:
                spent, sent = await burst_cost(cluster, name, worker, events)
                costs[name].append(spent / sent * 1e6)
        for name in APPS:
            await check_published(cluster, name)
        print(f"joins: {(await node_status(cluster))['apps']['following']['invites']}\n")
    return costs


async def main(rounds: int, events: int) -> None:
    print("| ns from the socket to the buffer | without tracking | with tracking | times |")
    print("|---|---|---|---|")
    for name in SAMPLES:
        off, on = measure_event(name)
        print(f"| {name} | {off:.0f} | {on:.0f} | {on / off:.2f} |")
    print()
    costs = await measure_burst(rounds, events)
    plain = statistics.median(costs["plain"])
    print(f"| CPU µs an event, {rounds} bursts of {events} | median (min to max) | times without |")
    print("|---|---|---|")
    for name, values in costs.items():
        print(f"| {name} | {spread(values)} | {statistics.median(values) / plain:.2f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.invites", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--events", type=int, default=40_000, help="events a burst")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.rounds, arguments.events))
