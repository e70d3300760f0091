"""What publishing costs: shards with a steady rate over one real NATS, in one process, without a gateway.

    python -m benchmarks.publishing --shards 4 16 64 --rate 2000 --seconds 10

CPU is that of the publishing process, per event. Latency is from the push of an event to its acknowledgement.
"""

import argparse
import asyncio
import random
import resource
import statistics
import tempfile
import time
from collections import deque
from pathlib import Path

import msgspec
import uvloop

from sandwich_coordinator.ids import Fence, ShardId
from sandwich_node.dev.embedded import EmbeddedNats
from sandwich_node.nats_connection import NatsConnection
from sandwich_node.nats_options import NatsOptions
from sandwich_node.publishing.chain import Chain
from sandwich_node.publishing.frames import Batch, EventBuffer, ShardOrigin
from sandwich_node.publishing.jetstream import JetStreamLog
from sandwich_node.publishing.publisher import ShardPublisher
from sandwich_node.publishing.ticks import Ticks

APP = "bench"
TICK_S = 0.002
EVENT = msgspec.json.encode(
    {"op": 0, "t": "MESSAGE_CREATE", "s": 1, "d": {"content": "x" * 900, "id": "1", "author": {"id": "2"}}}
)


class TimedBuffer(EventBuffer):
    """Keeps how long each event took from `push` to `confirm`."""

    def __init__(self, origin: ShardOrigin) -> None:
        super().__init__(origin)
        self.pushed: deque[float] = deque()
        self.took: list[float] = []

    def confirm(self, batch: Batch) -> None:
        super().confirm(batch)
        now = time.perf_counter()
        self.took += [now - self.pushed.popleft() for _ in batch.items]


async def measure(shards: int, rate: float, seconds: float, linger_s: float) -> dict[str, float]:
    """One row: µs of CPU an event, events a frame, latency in ms."""
    with tempfile.TemporaryDirectory() as directory:
        async with EmbeddedNats(Path(directory)) as server:
            connection = NatsConnection(NatsOptions(servers=(server.url,)))
            log = JetStreamLog(connection)
            await connection.connect()
            await log.ensure_stream(APP)
            publishers, ticks = [], Ticks(linger_s)
            for number in range(shards):
                origin = ShardOrigin(shard=ShardId(APP, 0, number), count=shards, route="", bot="1")
                chain = Chain(log, origin, fence=Fence(1), pause=asyncio.sleep, rng=random.Random(number))
                await chain.take_over()
                buffer = TimedBuffer(origin)
                buffer.start_session(f"s{number}", 0, bot="1")
                publishers.append(ShardPublisher(buffer, chain, ticks=ticks))
            runs = [asyncio.create_task(publisher.run()) for publisher in publishers]
            try:
                return await _drive(publishers, rate, seconds)
            finally:
                for run in runs:
                    run.cancel()
                await asyncio.gather(*runs, return_exceptions=True)
                await connection.close()


async def _drive(publishers: list[ShardPublisher], rate: float, seconds: float) -> dict[str, float]:
    clock = asyncio.get_running_loop().time
    sent = [0] * len(publishers)

    def push(number: int) -> None:
        sent[number] += 1
        buffer = publishers[number].buffer
        assert isinstance(buffer, TimedBuffer)
        buffer.pushed.append(time.perf_counter())
        publishers[number].push(EVENT, "MESSAGE_CREATE", sent[number])

    begun, before = clock(), resource.getrusage(resource.RUSAGE_SELF)
    count = 0
    while (now := clock()) < begun + seconds:
        # Sockets become readable one at a time: each event is pushed in a turn of its own.
        while count < (now - begun) * rate:
            push(count % len(publishers))
            count += 1
            await asyncio.sleep(0)
        await asyncio.sleep(TICK_S)
    await asyncio.gather(*(publisher.flushed() for publisher in publishers))
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    frames = sum(publisher.counters.frames for publisher in publishers)
    events = sum(publisher.counters.events for publisher in publishers)
    taken = [one for publisher in publishers for one in publisher.buffer.took]  # type: ignore[attr-defined]
    cuts = statistics.quantiles(taken, n=100)
    return {
        "cpu_us": cpu / count * 1e6,
        "events_a_frame": events / frames,
        "p50_ms": cuts[49] * 1e3,
        "p99_ms": cuts[98] * 1e3,
    }


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--shards", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--rate", type=float, default=2000.0)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--linger", type=float, default=0.008)
    options = parser.parse_args()
    print("| shards | events/s | CPU µs an event | events a frame | p50 ms | p99 ms |")
    print("|---|---|---|---|---|---|")
    for shards in options.shards:
        row = uvloop.run(measure(shards, options.rate, options.seconds, options.linger))
        figures = " | ".join(
            f"{row.get(name, float('nan')):.1f}" for name in ("cpu_us", "events_a_frame", "p50_ms", "p99_ms")
        )
        print(f"| {shards} | {options.rate:.0f} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
