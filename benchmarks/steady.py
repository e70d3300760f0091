"""`python -m benchmarks.steady`: the cost of an ordinary day: steady traffic over many shards.

    python -m benchmarks.steady --load 4/2000 64/2000 300/200 --cache off on --seconds 10 --peers "rust publisher"

Each `--load SHARDS/RATE` has a row without and with the cache, on a node with one worker, and a row for each peer
(benchmarks/peers): one process with the same bot, on a simulator of its own with the same seed. CPU is read from
outside (`/proc`) over the measured seconds, as a share of one core; a node's is that of all its processes. Latency is
from the simulator's dispatch to the time at which the event's frame is in the stream, by the server's clock; the
stream is read afterwards. Events are counted in the stream, and with a library by the messages that it handled. A row
of which the simulator did not reach the rate has the real one in brackets. A row of which the reader did not take what
was sent says so and has no figures, and a peer that cannot run or ends meanwhile is named with the reason.
"""

import argparse
import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import msgspec
import nats
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from benchmarks.nodes import all_live, node_pids, node_status, until_spares
from benchmarks.peers import PEERS, Peer, make_stream
from benchmarks.processes import Client, ClientFailed, cpu_s, not_run, token, until, until_quiet
from sandwich_node.dev.cluster import DevBot, DevCluster, dev_cluster
from sandwich_sdk.wire.frame import session_hash
from sandwich_sdk.wire.headers import FrameHeaders
from sandwich_sdk.wire.subjects import stream_name
from sandwich_simulator.config import MIXES

APP = "steady"
GUILDS_A_SHARD = 4
MEMBERS = 10
WARM_UP_S = 3.0
CATCH_UP_S = 20.0
"""A worker that is behind stores what was sent within this, or does not reach the rate."""
REACHED = 0.97
"""A row counts if at least this part of what was sent was taken."""
START_TIMEOUT_S = 600.0
DEFAULT = ["4/2000", "16/2000", "64/2000", "300/200"]
DEFAULT_PEERS = ["rust publisher", "discord.py", "discord.py[speed]", "hikari[speedups]"]
DEFAULT_MIX = "messages"
COUNTED = "MESSAGE_CREATE"
"""What libraries count."""
HEAD = (
    "all its processes",
    "µs an event",
    "worker",
    "NATS",
    "Redis",
    "p50 ms",
    "p99 ms",
    "events a frame",
    "bytes a frame",
)


@dataclass(frozen=True, slots=True)
class Load:
    """Steady traffic: events a second over all shards."""

    shards: int
    rate: int

    @classmethod
    def parse(cls, text: str) -> "Load":
        """From "SHARDS/RATE". Raises ValueError."""
        shards, rate = text.split("/")
        return cls(int(shards), int(rate))


@dataclass(frozen=True, slots=True)
class Cpu:
    """Seconds of CPU that the processes have used. `whole`: of all that is measured, `worker`: of its busiest."""

    whole: float
    worker: float
    nats: float
    redis: float


@dataclass(frozen=True, slots=True)
class Figures:
    """One row. CPU in % of one core, `sent` in events a second, of which the part `taken` was read or stored.

    The rest as in HEAD, 0 without a stream.
    """

    sent: float
    taken: float
    cpu: Cpu
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    events_a_frame: float = 0.0
    bytes_a_frame: float = 0.0


@asynccontextmanager
async def quiet_cluster(load: Load, *, cache: bool, mix: str = DEFAULT_MIX) -> AsyncIterator[DevCluster]:
    """Servers, and the simulator with the bot. No node, no traffic."""
    bot = DevBot(
        app=APP,
        token=token(1),
        guilds=GUILDS_A_SHARD * load.shards,
        shards=load.shards,
        recommended=load.shards,
        max_concurrency=load.shards,
        members=MEMBERS,
        settings={"cache": {"enabled": cache}},
        # What happens in hidden channels would count for the rate and not be sent.
        world={"session_limit": 2 * load.shards + 1000, "hidden_channels": 0.0, "mix": mix},
    )
    async with dev_cluster((bot,), nodes=0, rate=0) as cluster:
        yield cluster


@asynccontextmanager
async def steady_cluster(
    load: Load, *, cache: bool, mix: str = DEFAULT_MIX, env: dict[str, str] | None = None
) -> AsyncIterator[DevCluster]:
    """A node with all shards live, its spare worker there and nothing to do. `env`: more of the node's environment."""
    async with quiet_cluster(load, cache=cache, mix=mix) as cluster:
        cluster.env.update(env or {})
        await cluster.start_node("a")
        await until(lambda: all_live(cluster, load.shards), START_TIMEOUT_S)
        await until_spares(cluster)
        await until_quiet(*node_pids(cluster))
        yield cluster


async def worker_pid(cluster: DevCluster) -> int:
    """The only worker."""
    return int((await node_status(cluster))["workers"][0]["pid"])


async def measure(load: Load, *, cache: bool, seconds: float, mix: str = DEFAULT_MIX) -> Figures:
    """A row of Sandwich."""
    async with steady_cluster(load, cache=cache, mix=mix) as cluster:
        worker = await worker_pid(cluster)
        return await _figures(cluster, load, seconds, lambda: node_pids(cluster), worker)


async def measure_peer(peer: Peer, load: Load, *, seconds: float, mix: str = DEFAULT_MIX) -> Figures:
    """A row of something else. Raises ClientFailed."""
    await asyncio.to_thread(peer.prepare)
    async with quiet_cluster(load, cache=False, mix=mix) as cluster:
        if peer.stores:
            await make_stream(cluster, APP)
        async with peer.run(cluster, APP, token(1), load.shards) as client, client.must_run():
            await until_quiet(client.pid)
            library = None if peer.stores else client
            return await _figures(cluster, load, seconds, lambda: [client.pid], client.pid, library)


async def _figures(
    cluster: DevCluster,
    load: Load,
    seconds: float,
    pids: Callable[[], list[int]],
    worker: int,
    library: Client | None = None,
) -> Figures:
    """Send events at the rate and measure. `library`: it does not store them, and counts messages."""

    def cpu() -> Cpu:
        used = sum(cpu_s(pid) for pid in pids())
        return Cpu(used, cpu_s(worker), cpu_s(cluster.nats.pid), cpu_s(cluster.redis.pid))

    await cluster.simulator("traffic", {"rate": load.rate})
    await asyncio.sleep(WARM_UP_S)
    before, began, began_ns = cpu(), time.monotonic(), time.time_ns()
    await asyncio.sleep(seconds)
    after, took, ended_ns = cpu(), time.monotonic() - began, time.time_ns()
    await cluster.simulator("pause_traffic", {})
    share = Cpu(*((getattr(after, name) - getattr(before, name)) / took * 100 for name in Cpu.__slots__))
    sent, counted = await _sent(cluster, began_ns, ended_ns)
    rate = len(sent) / took
    if library is not None:
        return Figures(rate, await _handled(library, counted), share)
    until_s = time.monotonic() + CATCH_UP_S
    while True:
        stored, frames = await _stored(cluster, began_ns, ended_ns)
        waited = sorted((stored[key] - ns) / 1e6 for key, ns in sent.items() if key in stored)
        if len(waited) == len(sent) or time.monotonic() >= until_s:
            break
        await asyncio.sleep(1.0)
    if not waited or not frames:
        return Figures(sent=rate, taken=0.0, cpu=share)
    return Figures(
        sent=rate,
        taken=len(waited) / len(sent),
        cpu=share,
        p50_ms=waited[len(waited) // 2],
        p99_ms=waited[int(len(waited) * 0.99)],
        events_a_frame=statistics.fmean(events for events, _ in frames),
        bytes_a_frame=statistics.fmean(size for _, size in frames),
    )


async def _handled(library: Client, counted: int) -> float:
    """The part of so many messages that a library's handler got, once it has caught up."""

    async def caught_up() -> bool:
        return library.messages >= counted

    with contextlib.suppress(TimeoutError):
        await until(caught_up, CATCH_UP_S)
    return library.messages / max(1, counted)


async def _sent(cluster: DevCluster, began_ns: int, ended_ns: int) -> tuple[dict[tuple[str, int], int], int]:
    """When the simulator sent each event of the measured time: by session and sequence, Unix nanoseconds.

    And how many messages it has sent from the start.
    """
    found: dict[tuple[str, int], int] = {}
    counted = 0
    url = f"{cluster.simulator_url}/_sim/journal"
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        async for line in response.content:
            entry = msgspec.json.decode(line)
            counted += entry["t"] == COUNTED
            if began_ns <= entry["ns"] <= ended_ns:
                found[session_hash(entry["session"]), entry["seq"]] = entry["ns"]
    return found, counted


async def _stored(
    cluster: DevCluster, began_ns: int, ended_ns: int
) -> tuple[dict[tuple[str, int], int], list[tuple[int, int]]]:
    """When each event was stored, as `_sent`; and events and payload bytes of each frame of the measured time."""
    stored: dict[tuple[str, int], int] = {}
    frames: list[tuple[int, int]] = []
    connection = await nats.connect(cluster.nats.url)
    try:
        stream = connection.jetstream()
        left = (await stream.stream_info(stream_name(APP))).state.messages
        config = ConsumerConfig(deliver_policy=DeliverPolicy.ALL, ack_policy=AckPolicy.NONE)
        reading = await stream.pull_subscribe(f"sandwich.{APP}.events.>", stream=stream_name(APP), config=config)
        while left:
            for message in await reading.fetch(min(left, 500), timeout=10):
                left -= 1
                headers = FrameHeaders.decode(message.headers)
                at = round(message.metadata.timestamp.timestamp() * 1e9)
                stored.update(
                    ((headers.session, seq), at)
                    for seq in range(headers.first_seq, headers.last_seq + 1)
                    if headers.count
                )
                if headers.count and began_ns <= at <= ended_ns:
                    frames.append((headers.count, len(message.data)))
    finally:
        await connection.close()
    return stored, frames


def row(load: Load, what: str, figures: Figures) -> str:
    """The line of the table."""
    cpu, sent = figures.cpu, figures.sent
    begin = _begin(load, what, sent if sent < REACHED * load.rate else None)
    if not sent or figures.taken < REACHED:
        return f"{begin} took {figures.taken:.0%} of the events in time{' |' * len(HEAD)}"
    whole = f"{cpu.whole:.1f} % | {cpu.whole * 1e4 / sent:.0f} |"
    if not figures.events_a_frame:
        return f"{begin} {whole}{' |' * (len(HEAD) - 2)}"
    shares = " | ".join(f"{value:.1f} %" for value in (cpu.worker, cpu.nats, cpu.redis))
    return (
        f"{begin} {whole} {shares} | {figures.p50_ms:.1f} | {figures.p99_ms:.1f} | "
        f"{figures.events_a_frame:.1f} | {figures.bytes_a_frame:.0f} |"
    )


def _begin(load: Load, what: str, sent: float | None = None) -> str:
    reached = "" if sent is None else f" ({sent:,.0f})"
    return f"| {load.shards} | {load.rate:,}{reached} | {what} |"


async def peer_row(peer: Peer, load: Load, *, seconds: float, mix: str) -> str:
    """The line of the table, also when the peer cannot run here or ends meanwhile."""
    try:
        return row(load, peer.name, await measure_peer(peer, load, seconds=seconds, mix=mix))
    except ClientFailed as failed:
        return f"{_begin(load, peer.name)} {not_run(failed)}{' |' * len(HEAD)}"


async def table(
    loads: Sequence[Load], caches: Sequence[bool], peers: Sequence[str], seconds: float, mix: str = DEFAULT_MIX
) -> None:
    """Print the table, a row when it is measured."""
    print(f"| shards | events/s | | {' | '.join(HEAD)} |")
    print(f"|{'---|' * (len(HEAD) + 3)}")
    for load in loads:
        for cache in caches:
            figures = await measure(load, cache=cache, seconds=seconds, mix=mix)
            print(row(load, f"Sandwich, cache {'on' if cache else 'off'}", figures), flush=True)
        for name in peers:
            print(await peer_row(PEERS[name], load, seconds=seconds, mix=mix), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steady", description=__doc__)
    parser.add_argument("--load", type=Load.parse, nargs="+", help=f"SHARDS/RATE; default: {' '.join(DEFAULT)}")
    parser.add_argument("--cache", choices=("off", "on"), nargs="*", default=["off", "on"])
    parser.add_argument("--peers", choices=list(PEERS), nargs="*", default=DEFAULT_PEERS)
    parser.add_argument("--mix", choices=MIXES, default=DEFAULT_MIX, help="what the events are")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each measurement")
    arguments = parser.parse_args()
    chosen = arguments.load or [Load.parse(text) for text in DEFAULT]
    asyncio.run(
        table(chosen, [name == "on" for name in arguments.cache], arguments.peers, arguments.seconds, arguments.mix)
    )
