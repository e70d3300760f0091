"""A small and fast model of Discord: sessions, replay, the rules of IDENTIFY. No I/O.

It follows reference sections 3 to 7 where they matter to the control plane: one connection for each session, a bounded
replay buffer, op 9 for a session that cannot be resumed, one IDENTIFY per bucket every five seconds where Discord
receives them, a budget of session starts with its reset. Buckets and budget belong to a token, which several
applications may share; large_threshold shows which of them identifies.
"""

import asyncio
import json
import random
from collections import deque
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import WSMsgType

from sandwich_coordinator.discord_api import CurrentUser, GatewayBot
from sandwich_sdk.wire.frame import session_hash
from verification.simulation.checks import Journal

REPLAY_MAX = 400
RESUME_WINDOW_S = 90.0
IDENTIFY_EVERY_S = 5.0
URL = "ws://discord.sim"
SESSION_TIMED_OUT = 4009
REST_LATENCY_S = 0.02
IDENTIFY_TRAVELS_S = (0.005, 0.06, 1.0)
"""How long an IDENTIFY is on its way: between the first two; a part of them, up to the third."""
SLOW_PART = 0.1
THRESHOLD_MIN = 50

Shard = tuple[str, int]


@dataclass(slots=True)
class Session:
    """One session: what it dispatched, and the socket that receives it."""

    id: str
    shard: Shard
    seq: int = 0
    replay: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=REPLAY_MAX))
    socket: "Socket | None" = None
    left_at: float = 0.0
    dead: bool = False

    def dispatch(self, name: str, data: Any) -> None:
        """Dispatch one event, whether a socket is open or not."""
        self.seq += 1
        text = json.dumps({"op": 0, "t": name, "s": self.seq, "d": data}, separators=(",", ":"))
        self.replay.append((self.seq, text))
        if self.socket is not None:
            self.socket.deliver(text)

    def resumable(self, seq: int, now: float) -> bool:
        """Whether a RESUME from `seq` would succeed."""
        oldest = self.replay[0][0] if self.replay else 1
        fresh = self.socket is not None or now - self.left_at <= RESUME_WINDOW_S
        return not self.dead and fresh and oldest - 1 <= seq <= self.seq


class Socket:
    """One gateway connection, with the interface of aiohttp's client."""

    def __init__(self, discord: "Discord") -> None:
        self.session: Session | None = None
        self._discord = discord
        self._inbox: asyncio.Queue[tuple[WSMsgType, Any, Any]] = asyncio.Queue()
        self._travelling_until = 0.0
        self.open = True
        self.deliver(json.dumps({"op": 10, "t": None, "s": None, "d": {"heartbeat_interval": 41250}}))

    def deliver(self, text: str) -> None:
        """Send a message, as bytes: the shard asks aiohttp not to decode text."""
        if self.open:
            self._inbox.put_nowait((WSMsgType.TEXT, text.encode(), None))

    def end(self, code: int | None) -> None:
        """Discord ends the connection, with a close frame or without."""
        if self.open:
            self._leave()
            kind = WSMsgType.CLOSED if code is None else WSMsgType.CLOSE
            self._inbox.put_nowait((kind, code, ""))

    def _leave(self) -> None:
        self.open = False
        session, self.session = self.session, None
        if session is not None and session.socket is self:
            session.socket = None
            session.left_at = asyncio.get_running_loop().time()

    async def receive(self) -> tuple[WSMsgType, Any, Any]:
        """The next message, after a short delay."""
        message = await self._inbox.get()
        if self._inbox.empty():
            await asyncio.sleep(0.001)
        return message

    async def send_frame(self, payload: bytes, _: WSMsgType) -> None:
        """The client sends a frame. Raises OSError when the connection is closed."""
        await asyncio.sleep(0.001)
        if not self.open:
            raise OSError("the connection is closed")
        message = json.loads(payload)
        loop = asyncio.get_running_loop()
        if message["op"] == 2:
            self._travelling_until = loop.time() + self._discord.identify_travels_s()
        if self._travelling_until > loop.time():
            # In order behind it. A context of its own: what is on its way arrives although its sender is frozen.
            loop.call_at(self._travelling_until, self._arrived, message, context=Context())
        else:
            self._arrived(message)

    def _arrived(self, message: dict[str, Any]) -> None:
        match message["op"]:
            case 1:
                self.deliver('{"op":11,"t":null,"s":null,"d":null}')
            case 2:
                self._discord.identify(self, message["d"])
            case 6:
                self._discord.resume(self, message["d"])

    async def close(self, *, code: int) -> None:
        """The client closes; 1000 and 1001 end the session."""
        if self.open:
            if self.session is not None and code in (1000, 1001):
                self.session.dead = True
            self._leave()


class Discord:
    """The sessions of all bots, and checks of what must not happen to them.

    `stored` is what the stream has of each (shard, session hash); `recorded` gives the session id of a shard in etcd.
    """

    def __init__(
        self,
        journal: Journal,
        rng: random.Random,
        *,
        apps: dict[str, int],
        concurrency: int,
        tokens: dict[str, str] | None = None,
        total: int = 1000,
        window_s: float = 86_400.0,
        slow_part: float = SLOW_PART,
    ) -> None:
        """`tokens`: by application, each its own when not given. `total`, `window_s`: of each token's budget.

        `slow_part`: of the IDENTIFYs, how many travel slowly.
        """
        self.sessions: list[Session] = []
        self.current: dict[Shard, Session] = {}
        self.identifies = 0
        self.refused: set[Shard] = set()
        self.refuse_until = 0.0
        self.quiet = False
        self.stored: dict[tuple[Shard, str], int] = {}
        self.recorded: Callable[[Shard], str] = lambda _: ""
        self.live_at: dict[Shard, float] = {}
        self._journal = journal
        self._rng = rng
        self._travel_rng = random.Random(concurrency)
        self._slow_part = slow_part
        self._apps = apps
        self._concurrency = concurrency
        self._tokens = tokens if tokens is not None else {app: app for app in apps}
        self._total = total
        self._window_s = window_s
        self._last_identify: dict[tuple[str, int], float] = {}
        self._used: dict[tuple[str, int], int] = {}

    # --- called by the agent and the shards ---------------------------------------------------------------------

    async def ws_connect(self, url: str, **_: object) -> Socket:
        """See `aiohttp.ClientSession.ws_connect`."""
        await asyncio.sleep(self._rng.uniform(0.005, 0.05))
        if asyncio.get_running_loop().time() < self.refuse_until:
            raise aiohttp.ClientConnectionError("refused")
        return Socket(self)

    async def gateway_bot(self, token: str) -> GatewayBot:
        """`GET /gateway/bot`: see `DiscordApi`."""
        await asyncio.sleep(REST_LATENCY_S)
        return GatewayBot(
            url=URL,
            shards=self._apps[token],
            total=self._total,
            remaining=self._total - self._used.get((token, self._window()), 0),
            reset_after_s=self._window_s * (self._window() + 1) - asyncio.get_running_loop().time(),
            max_concurrency=self._concurrency,
        )

    async def current_user(self, token: str) -> CurrentUser:
        """`GET /users/@me`: see `DiscordApi`."""
        await asyncio.sleep(REST_LATENCY_S)
        return self._user(token)

    def _user(self, token: str) -> CurrentUser:
        return CurrentUser(id=str(1000 + sorted(self._apps).index(token)), name=token)

    def _window(self) -> int:
        """The present window of the budgets."""
        return int(asyncio.get_running_loop().time() // self._window_s)

    def identify_travels_s(self) -> float:
        """How long an IDENTIFY is on its way."""
        least, most, slow = IDENTIFY_TRAVELS_S
        return self._travel_rng.uniform(least, slow if self._travel_rng.random() < self._slow_part else most)

    def identify(self, socket: Socket, data: dict[str, Any]) -> None:
        """Op 2, when it arrives."""
        if not socket.open:
            return
        now = asyncio.get_running_loop().time()
        token, (number, count) = data["token"], data["shard"]
        app = sorted(self._apps)[data["large_threshold"] - THRESHOLD_MIN]
        if self._tokens[app] != token:
            self._journal.violate(f"{app} identifies with the token of {token}")
        shard = (app, number)
        bucket = (token, number % self._concurrency)
        last = self._last_identify.get(bucket)
        if last is not None and now - last < IDENTIFY_EVERY_S:
            self._journal.violate(f"IDENTIFY of {shard} only {now - last:.3f} s after the bucket's last")
        self._last_identify[bucket] = now
        used = self._used[token, self._window()] = self._used.get((token, self._window()), 0) + 1
        if used > self._total:
            self._journal.violate(f"IDENTIFY of {shard}: the {used}th of {self._total} session starts")
        before = self.current.get(shard)
        if before is not None and shard not in self.refused:
            stored = self.stored.get((shard, session_hash(before.id)), 0)
            if self.recorded(shard) == before.id and before.resumable(stored, now):
                self._journal.violate(f"IDENTIFY of {shard} although its session could be resumed from {stored}")
        self.refused.discard(shard)
        self.identifies += 1
        if before is not None:
            before.dead = True
        session = Session(f"{app}-{number}-{self.identifies}", shard)
        self.sessions.append(session)
        self.current[shard] = session
        self.live_at[shard] = now
        session.socket, socket.session = socket, session
        self._journal.note(f"discord: IDENTIFY {shard} -> {session.id}")
        user = self._user(token)
        session.dispatch(
            "READY",
            {
                "v": 10,
                "user": {"id": user.id, "username": user.name},
                "guilds": [],
                "session_id": session.id,
                "resume_gateway_url": URL,
                "shard": [number, count],
            },
        )

    def resume(self, socket: Socket, data: dict[str, Any]) -> None:
        """Op 6."""
        now = asyncio.get_running_loop().time()
        found = next((session for session in self.sessions if session.id == data["session_id"]), None)
        if found is None or not found.resumable(data["seq"], now):
            if found is not None:
                self.refused.add(found.shard)
                found.dead = True
            self._journal.note(f"discord: RESUME {data['session_id']} from {data['seq']} refused")
            socket.deliver('{"op":9,"t":null,"s":null,"d":false}')
            return
        if found.socket is not None:
            found.socket.end(4000)
        self._journal.note(f"discord: RESUME {found.id} from {data['seq']} of {found.seq}")
        for seq, text in found.replay:
            if seq > data["seq"]:
                socket.deliver(text)
        found.socket, socket.session = socket, found
        found.dispatch("RESUMED", {})

    # --- traffic and faults -------------------------------------------------------------------------------------

    async def traffic(self) -> None:
        """Dispatch events in random live sessions, until `quiet`."""
        while True:
            await asyncio.sleep(self._rng.uniform(0.02, 0.1))
            living = [s for s in self.current.values() if not s.dead]
            if living and not self.quiet:
                session = self._rng.choice(living)
                session.dispatch("MESSAGE_CREATE", {"id": str(session.seq)})

    def drop(self, part: float, code: int | None) -> None:
        """End some connections."""
        for session in list(self.current.values()):
            if session.socket is not None and self._rng.random() < part:
                if code == SESSION_TIMED_OUT:
                    session.dead = True
                    self.refused.add(session.shard)
                session.socket.end(code)

    def say(self, part: float, text: str) -> None:
        """Send this to some connections (op 7, op 9 true)."""
        for session in list(self.current.values()):
            if session.socket is not None and self._rng.random() < part:
                session.socket.deliver(text)

    def forget(self) -> None:
        """End one session: op 9 false."""
        living = [session for session in self.current.values() if session.socket is not None]
        if living:
            session = self._rng.choice(living)
            session.dead = True
            self.refused.add(session.shard)
            assert session.socket is not None
            session.socket.deliver('{"op":9,"t":null,"s":null,"d":false}')
