"""Shard groups of one bot side by side, on virtual time: a small Discord, runners, and what consumers get.

Discord is modelled as the switch needs it: each session receives its guilds' events in order, each at a delay of its
own; an acknowledged heartbeat has everything before it that was sent `SPREAD_S` before. Sessions replay after RESUME.
"""

import asyncio
import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import WSMsgType

from sandwich_coordinator.ids import ShardId
from sandwich_coordinator.ranges import format_ranges
from sandwich_coordinator.types import CacheSpec, EventsSpec, GroupPhase, InvitesSpec, SessionRecord
from sandwich_node import ipc
from sandwich_node.publishing.previous_group import PreviousGroups
from sandwich_node.rpc.server import RpcServer
from sandwich_node.shards.runner import ShardRunner
from sandwich_node.shards.services import WorkerServices
from sandwich_sdk.wire.frame import inflate, split_events
from tests.support.memory_log import MemoryLog
from verification.simulation.loop import wall_s

SPREAD_S = 0.05
"""How much later one session may be sent an event than another."""
TICK_S = 1e-6
"""Timers of one moment have no order."""
GUILD_0 = 100 << 22
GUILD_EVENTS = ("GUILD_CREATE", "GUILD_DELETE")
"""Their `id` is the guild's."""


@dataclass(slots=True)
class GatewaySession:
    """One session: all that it was sent, whether a socket was open or not."""

    id: str
    shard: int
    count: int
    guilds: set[int]
    sent: list[str] = field(default_factory=list)
    socket: "GatewaySocket | None" = None
    is_dead: bool = False
    free_at: float = 0.0
    presence: Any = None
    commands: Counter[int] = field(default_factory=Counter)

    def dispatch(self, name: str, data: Any) -> None:
        text = json.dumps({"t": name, "s": len(self.sent) + 1, "op": 0, "d": data}, separators=(",", ":"))
        self.sent.append(text)
        if self.socket is not None:
            self.socket.deliver(text)


class GatewaySocket:
    """A connection, with the interface of aiohttp's client. What it carries arrives in order, with latency."""

    def __init__(self, discord: "SmallDiscord") -> None:
        self.session: GatewaySession | None = None
        self.is_open = True
        self.closed_with: int | None = None
        self._discord = discord
        self._inbox: asyncio.Queue[tuple[WSMsgType, Any, Any]] = asyncio.Queue()
        self._arrives_at = 0.0
        self.deliver('{"t":null,"s":null,"op":10,"d":{"heartbeat_interval":41250}}')

    def deliver(self, text: str) -> None:
        if self.is_open:
            loop = asyncio.get_running_loop()
            self._arrives_at = max(self._arrives_at + TICK_S, loop.time() + self._discord.rng.uniform(0.001, 0.03))
            loop.call_at(self._arrives_at, self._inbox.put_nowait, (WSMsgType.TEXT, text.encode(), None))

    def end(self, code: int | None) -> None:
        if self.is_open:
            self._leave()
            self._inbox.put_nowait((WSMsgType.CLOSED if code is None else WSMsgType.CLOSE, code, ""))

    def _leave(self) -> None:
        self.is_open = False
        if self.session is not None and self.session.socket is self:
            self.session.socket = None

    async def receive(self) -> tuple[WSMsgType, Any, Any]:
        return await self._inbox.get()

    async def send_frame(self, payload: bytes, _: WSMsgType) -> None:
        await asyncio.sleep(0.001)
        if not self.is_open:
            raise OSError("closed")
        message = json.loads(payload)
        match message["op"]:
            case 1:
                ack = '{"t":null,"s":null,"op":11,"d":null}'
                asyncio.get_running_loop().call_later(SPREAD_S, self.deliver, ack)
            case 2:
                self._discord.identify(self, message["d"])
            case 6:
                self._discord.resume(self, message["d"])
            case op if self.session is not None:
                self._discord.command(self.session, op, message["d"])

    async def close(self, *, code: int) -> None:
        self.closed_with = code
        if self.is_open:
            if self.session is not None and code in (1000, 1001):
                self.session.is_dead = True
            self._leave()


class SmallDiscord:
    """The guilds of one bot. `emitted`: of each guild (0: none), the numbers of its events in order.

    `down`: the guilds in an outage.
    """

    def __init__(self, rng: random.Random, guilds: int) -> None:
        self.rng = rng
        self.guilds = [GUILD_0 + (index << 22) + index for index in range(guilds)]
        self.sessions: list[GatewaySession] = []
        self.emitted: dict[int, list[int]] = defaultdict(list)
        self.down: set[int] = set()
        self.replay_max = 5000
        self._number = 0

    async def ws_connect(self, url: str, **_: object) -> GatewaySocket:
        await asyncio.sleep(self.rng.uniform(0.005, 0.03))
        return GatewaySocket(self)

    def identify(self, socket: GatewaySocket, data: dict[str, Any]) -> None:
        shard, count = data["shard"]
        guilds = {guild for guild in self.guilds if (guild >> 22) % count == shard}
        session = GatewaySession(f"session-{len(self.sessions)}", shard, count, guilds)
        session.presence = data.get("presence")
        self.sessions.append(session)
        session.socket, socket.session = socket, session
        listed = [{"id": str(guild), "unavailable": True} for guild in sorted(guilds)]
        user = {"id": "42", "username": "bot"}
        ready = {
            "v": 10,
            "user": user,
            "guilds": listed,
            "session_id": session.id,
            "resume_gateway_url": "ws://discord",
        }
        session.dispatch("READY", ready)
        for guild in sorted(guilds):
            name = "GUILD_DELETE" if guild in self.down else "GUILD_CREATE"
            session.dispatch(name, {"id": str(guild), "unavailable": guild in self.down})

    def command(self, session: GatewaySession, op: int, data: Any) -> None:
        """Presence (3), and Request Soundboard Sounds (31)."""
        session.commands[op] += 1
        match op:
            case 3:
                session.presence = data
            case 31:
                for guild in data["guild_ids"]:
                    found = {"guild_id": guild, "soundboard_sounds": []}
                    delay = self.rng.uniform(SPREAD_S, 1.0)
                    asyncio.get_running_loop().call_later(delay, session.dispatch, "SOUNDBOARD_SOUNDS", found)

    def resume(self, socket: GatewaySocket, data: dict[str, Any]) -> None:
        found = next(session for session in self.sessions if session.id == data["session_id"])
        if found.is_dead or len(found.sent) - data["seq"] > self.replay_max:
            found.is_dead = True
            socket.deliver('{"t":null,"s":null,"op":9,"d":false}')
            return
        if found.socket is not None:
            found.socket.end(4000)
        for text in found.sent[data["seq"] :]:
            socket.deliver(text)
        found.socket, socket.session = socket, found
        found.dispatch("RESUMED", {})

    def emit(self, guild: int, name: str, **data: Any) -> int:
        """Send an event to every session that has the guild; returns its number."""
        self._number += 1
        self.emitted[guild].append(self._number)
        body = {**data, "n": self._number}
        if guild and name not in GUILD_EVENTS:
            body["guild_id"] = str(guild)
        loop = asyncio.get_running_loop()
        for session in self.sessions:
            if not session.is_dead and (guild in session.guilds or (not guild and not session.shard)):
                session.free_at = max(session.free_at + TICK_S, loop.time() + self.rng.uniform(0, SPREAD_S))
                loop.call_at(session.free_at, session.dispatch, name, body)
        return self._number

    def outage(self, guild: int) -> None:
        """The guild is away from now on."""
        self.down.add(guild)
        self.emit(guild, "GUILD_DELETE", id=str(guild), unavailable=True)

    def back(self, guild: int) -> None:
        """The guild is there again. Without an outage: Discord sends it again all the same."""
        self.down.discard(guild)
        self.emit(guild, "GUILD_CREATE", id=str(guild), unavailable=False)

    def random_event(self, repeated: float = 0.6) -> None:
        """A message; as often as `repeated` says, something that repeats itself."""
        guild = self.rng.choice([*self.guilds, 0])
        kind = self.rng.random() * (0.4 + repeated)
        if kind < 0.4 or not guild:
            self.emit(guild, "MESSAGE_CREATE", id=str(self._number + 1000), channel_id="5", content="x" * 20)
        elif kind < 0.8:
            mute = self.rng.random() < 0.5
            self.emit(guild, "VOICE_STATE_UPDATE", user_id=str(self.rng.randint(1, 2)), channel_id="7", self_mute=mute)
        else:
            status = self.rng.choice(["online", "idle"])
            self.emit(guild, "PRESENCE_UPDATE", user={"id": "9"}, status=status, activities=[], client_status={})

    async def traffic(self, per_s: float, *, repeated: float = 0.6) -> None:
        while True:
            await asyncio.sleep(self.rng.expovariate(per_s))
            self.random_event(repeated)


class Group:
    """One shard group, run by a small agent: it keeps sessions, grants IDENTIFYs, and knows each shard's state."""

    def __init__(
        self,
        world: "World",
        number: int,
        count: int,
        *,
        phase: GroupPhase = "active",
        previous: "Group | None" = None,
        events: EventsSpec | None = None,
    ) -> None:
        self.number, self.count, self.phase = number, count, phase
        self.records: dict[int, SessionRecord | None] = dict.fromkeys(range(count))
        self.states: dict[int, str] = {}
        self.stopped: dict[int, ipc.ShardStopped] = {}
        self.lost: list[ipc.EventsLost] = []
        self.identifies = 0
        self.runners: dict[int, ShardRunner] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.events = events or EventsSpec()
        self._world = world
        self._previous = previous

    def start(self, shards: Iterable[int] | None = None, *, phase: GroupPhase | None = None) -> None:
        """Start the shards under new fences."""
        self.phase = phase or self.phase
        for shard in shards if shards is not None else range(self.count):
            self._start(shard)

    def _start(self, shard: int) -> None:
        world, key = self._world, ShardId("bot", self.number, shard)
        before = self._previous
        ids = format_ranges(range(before.count)) if before is not None else ""
        start = ipc.StartShard(
            key=key,
            run=1,
            fence=world.next_fence(),
            count=self.count,
            route="bot",
            bot="42",
            token="token",
            token_hash="hash",
            gateway_url="ws://discord",
            api_url="http://discord",
            intents=1,
            compression="none",
            large_threshold=50,
            presence=None,
            session=self.records[shard],
            stream_max_age_s=0.0,
            stream_max_bytes=0,
            stream_replicas=1,
            options=ipc.ShardOptions(cache=CacheSpec(enabled=False), events=self.events, invites=InvitesSpec()),
            phase=self.phase,
            previous=ipc.PreviousGroup(group=before.number, count=before.count, ids=ids) if before else None,
        )
        self.states[shard] = "connecting"
        self.stopped.pop(shard, None)
        http: Any = world.discord
        services = WorkerServices(
            log=world.log,
            previous=world.previous,
            http=http,
            send=lambda message: self._receive(shard, message),
            rng=world.rng,
            clock=asyncio.get_running_loop().time,
            wall=wall_s,
            rpc=world.rpc,
        )
        runner = self.runners[shard] = ShardRunner(start, services)
        self.tasks[shard] = world.tasks.create_task(self._run(shard, runner))

    async def _run(self, shard: int, runner: ShardRunner) -> None:
        self.stopped[shard] = await runner.run()
        if self.stopped[shard].how == "ended":
            self.states[shard] = "ended"

    def _receive(self, shard: int, message: ipc.ToAgent) -> None:
        match message:
            case ipc.ShardChanged(_, state):
                self.states[shard] = state
            case ipc.SessionSaved(session=session):
                self.records[shard] = session
            case ipc.SessionDropped():
                self.records[shard] = None
            case ipc.EventsLost():
                self.lost.append(message)
            case ipc.IdentifyWanted():
                self.identifies += 1
                asyncio.get_running_loop().call_later(0.01, self.runners[shard].identify_granted)

    def set_phase(self, phase: GroupPhase) -> None:
        self.phase = phase
        for shard, runner in self.runners.items():
            if not self.tasks[shard].done():
                runner.set_phase(phase)

    def kill(self, shard: int) -> None:
        """kill -9 of the owner: nothing more leaves it."""
        self.tasks[shard].cancel()
        for session in self._world.discord.sessions:
            if (session.shard, session.count) == (shard, self.count) and session.socket is not None:
                session.socket.end(None)

    async def crash(self, shard: int) -> None:
        """Kill the owner; the next one takes over a moment later."""
        self.kill(shard)
        await asyncio.sleep(self._world.rng.uniform(0.05, 0.5))
        self._start(shard)

    async def serve(self) -> None:
        """Start all shards; returns when they are live."""
        self.start()
        await self.all_are("live")

    async def prepare(self, between: Callable[[str], None] = lambda _: None) -> None:
        """Start all shards with their output withheld; returns when they hold. `between` is called before each step."""
        between("preparing")
        self.start(phase="preparing")
        await self.all_are("ready")
        between("holding")
        self.set_phase("holding")
        await self.all_are("holding")

    async def all_are(self, *states: str) -> None:
        """Wait until every shard is in one of the states."""
        async with asyncio.timeout(120):
            while not all(state in states for state in self.states.values()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    def session_of(self, shard: int) -> GatewaySession:
        """The last session of a shard."""
        return [one for one in self._world.discord.sessions if (one.shard, one.count) == (shard, self.count)][-1]


class World:
    """A stream, a Discord, and groups."""

    def __init__(self, tasks: asyncio.TaskGroup, *, seed: int = 1, guilds: int = 12) -> None:
        self.tasks = tasks
        self.rng = random.Random(seed)
        self.discord = SmallDiscord(self.rng, guilds)
        self.log = MemoryLog()
        self.previous = PreviousGroups(self.log, self.rng)
        self.rpc: RpcServer | None = None
        self._fence = 100

    def next_fence(self) -> int:
        self._fence += 1
        return self._fence

    def events(self, *groups: Group) -> Iterator[dict[str, Any]]:
        """What consumers get: the groups' events, group by group, each in the stream's order."""
        for group in groups:
            for _, subject, payload, headers in self.log.messages:
                if headers.kind or subject.split(".")[4] != str(group.number):
                    continue
                assert headers.part is None
                yield from map(msgspec.json.decode, split_events(inflate(payload)))

    def published(self, *groups: Group) -> dict[int, list[int]]:
        """Of each guild, the numbers of its events as consumers get them."""
        found: dict[int, list[int]] = defaultdict(list)
        for event in self.events(*groups):
            data = event["d"]
            if "n" in data:
                guild = data["id"] if event["t"] in GUILD_EVENTS else data.get("guild_id", 0)
                found[int(guild)].append(data["n"])
        return found

    def songs(self, *groups: Group) -> list[int]:
        """The numbers of the own events of type SONG, in the stream's order."""
        lines = (
            msgspec.json.decode(line)
            for _, subject, payload, headers in self.log.messages
            if not headers.kind and int(subject.split(".")[4]) in {group.number for group in groups}
            for line in split_events(inflate(payload))
        )
        return [line["d"]["song"] for line in lines if line["t"] == "SONG"]

    def kinds(self, group: Group, shard: int) -> list[str]:
        """The kinds of a chain's frames, in order; "" for events."""
        return [
            headers.kind
            for _, subject, _, headers in self.log.messages
            if subject.split(".")[4:] == [str(group.number), str(shard)]
        ]


async def switch(
    world: World,
    old: Group,
    new: Group,
    *,
    between: Callable[[str], None] = lambda _: None,
) -> None:
    """Take the new group through its phases, as the leader does. `between` is called before each step."""
    await new.prepare(between)
    between("switching")
    new.set_phase("switching")
    old.set_phase("closing")
    await old.all_are("ended")
    await new.all_are("live")
    between("active")
    new.set_phase("active")
