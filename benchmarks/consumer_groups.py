"""`python -m benchmarks.consumer_groups`: events a second through a consumer group, ordered or not, 1 and 3 workers.

Workers are processes that read one prepared stream from a real nats-server on this machine. They hold their first
frames until all workers have some; the time is from the start signal to the last handled event. Six minutes.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import nats
import zstandard
from nats.js import JetStreamContext
from nats.js.api import StreamConfig

from benchmarks.processes import until
from sandwich_node.dev.embedded import EmbeddedNats, die_with_parent
from sandwich_sdk import Consumer, Event
from sandwich_sdk.wire import subjects
from sandwich_sdk.wire.frame import session_hash
from sandwich_sdk.wire.headers import FrameHeaders

APP = "bench"
SHARDS = 16
EVENT_BYTES = 700
WORKERS = (1, 3)
SETTLE_S = 5.0
"""The time until all workers have frames and an ordered group's shares are even (one message a second)."""
PUBLISHED_AT_ONCE = 256


@dataclass(frozen=True)
class Load:
    """The stream's content and the handler. `waits_s`: how long it waits, as for a database."""

    name: str
    frames: int
    events: int
    waits_s: float = 0.0
    concurrency: int = 1


LOADS = (
    Load("1 event a frame", 30_000, 1),
    Load("20 events a frame", 10_000, 20),
    Load("1 event a frame, handlers wait 5 ms, `concurrency=8`", 6_000, 1, 0.005, 8),
)


async def fill(jetstream: JetStreamContext, load: Load) -> None:
    """Fill a stream with the load's frames, in turn over the shards."""
    await jetstream.add_stream(StreamConfig(name=subjects.stream_name(APP), subjects=subjects.stream_subjects(APP)))
    session, gate = session_hash("bench"), asyncio.Semaphore(PUBLISHED_AT_ONCE)

    async def publish(number: int) -> None:
        shard, first = number % SHARDS, number // SHARDS * load.events + 1
        headers = FrameHeaders(
            session=session,
            first_seq=first,
            last_seq=first + load.events - 1,
            count=load.events,
            epoch=1,
            types=frozenset({"MESSAGE_CREATE"}),
        )
        lines = b"".join(line(shard, seq) for seq in range(first, first + load.events))
        async with gate:
            await jetstream.publish(
                subjects.events_subject(APP, subjects.DEFAULT_LANE, 0, shard),
                zstandard.ZstdCompressor().compress(lines),
                headers=headers.encode(),
            )

    async with asyncio.TaskGroup() as tasks:
        for number in range(load.frames):
            tasks.create_task(publish(number))


def line(shard: int, seq: int) -> bytes:
    meta = {"v": 1, "app": APP, "bot": "1", "route": "", "shard": [0, shard, SHARDS], "id": f"{shard}:{seq}"}
    noise = os.urandom(EVENT_BYTES // 2).hex()
    event = {"t": "MESSAGE_CREATE", "s": seq, "op": 0, "d": {"content": noise}, "__sandwich": meta}
    return msgspec.json.encode(event) + b"\n"


async def work(url: str, group: str, *, ordered: bool, waits_s: float, concurrency: int) -> None:
    """One worker: prints "ready", holds its first frames until a line on stdin, reports at the end of stdin."""
    begin = asyncio.Event()
    count = last_ns = 0
    consumer = Consumer(url, app=APP, group=group, start="all", ordered=ordered, concurrency=concurrency)

    @consumer.on_any
    async def handle(event: Event) -> None:
        nonlocal count, last_ns
        await begin.wait()
        if waits_s:
            await asyncio.sleep(waits_s)
        count, last_ns = count + 1, time.monotonic_ns()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(consumer.run(handle_signals=False))
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        begin.set()
        await asyncio.to_thread(sys.stdin.readline)
        await consumer.close()
    print(count, last_ns, flush=True)


@asynccontextmanager
async def worker(url: str, group: str, load: Load, ordered: bool) -> AsyncIterator[asyncio.subprocess.Process]:
    words = [url, group, str(int(ordered)), str(load.waits_s), str(load.concurrency)]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.consumer_groups",
        "--worker",
        *words,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        preexec_fn=die_with_parent,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def left(jetstream: JetStreamContext, group: str) -> int:
    """The number of frames that the group has not acknowledged."""
    infos = await jetstream.consumers_info(subjects.stream_name(APP))
    ours = [info for info in infos if info.name.partition("@")[0] == group]
    return sum((info.num_pending or 0) + (info.num_ack_pending or 0) for info in ours)


async def measure(jetstream: JetStreamContext, url: str, group: str, load: Load, ordered: bool, workers: int) -> float:
    """The events a second of one run."""
    async with AsyncExitStack() as stack, asyncio.timeout(120):
        started = [await stack.enter_async_context(worker(url, group, load, ordered)) for _ in range(workers)]
        outputs = [process.stdout for process in started if process.stdout is not None]
        inputs = [process.stdin for process in started if process.stdin is not None]
        assert [await stdout.readline() for stdout in outputs] == [b"ready\n"] * workers
        await asyncio.sleep(SETTLE_S)
        begun_ns = time.monotonic_ns()
        for stdin in inputs:
            stdin.write(b"\n")

        async def handled() -> bool:
            return not await left(jetstream, group)

        await until(handled)
        for stdin in inputs:
            stdin.close()
        reports = [await stdout.read() for stdout in outputs]
        for process in started:
            await process.wait()
    counts, ends = zip(*(map(int, report.split()[-2:]) for report in reports), strict=True)
    assert sum(counts) == load.frames * load.events, f"{sum(counts)} events were handled"
    return float(sum(counts) / (max(ends) - begun_ns) * 1e9)


async def main(rounds: int) -> None:
    heads = " | ".join(f"{name}, {n}" for name in ("not ordered", "ordered") for n in WORKERS)
    print(f"Events a second, median of {rounds} rounds (min to max); {SHARDS} shards, numbers of workers\n")
    print(f"| in the stream | {heads} |\n|---|---|---|---|---|")
    for load in LOADS:
        with tempfile.TemporaryDirectory() as directory:
            async with EmbeddedNats(Path(directory)) as server:
                client = await nats.connect(server.url)
                jetstream = client.jetstream()
                await fill(jetstream, load)
                cells = {(ordered, n): list[float]() for ordered in (False, True) for n in WORKERS}
                for number in range(rounds):
                    for (ordered, workers), figures in cells.items():
                        group = f"r{number}-{int(ordered)}-{workers}"
                        figures.append(await measure(jetstream, server.url, group, load, ordered, workers))
                await client.close()
        row = (f"{statistics.median(each):,.0f} ({min(each):,.0f} to {max(each):,.0f})" for each in cells.values())
        print(f"| {load.name} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.consumer_groups", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        of_url, of_group, is_ordered, waits, at_once = arguments.worker
        asyncio.run(work(of_url, of_group, ordered=is_ordered == "1", waits_s=float(waits), concurrency=int(at_once)))
    else:
        asyncio.run(main(arguments.rounds))
