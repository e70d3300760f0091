"""The simulator as a Python object. The control API offers its methods over HTTP.

async with Simulator(SimulatorConfig(bots=[BotConfig(token="t", guilds=50)])) as sim:
    ...  # sim.url for clients' gateway, sim.api_url for their REST
"""

import asyncio
import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, Self

import msgspec
from aiohttp import web

from .actions.guilds import arrive
from .actions.invites import DAY_S, JoinMethod, delete_invite, drop_expired, invite_created, join, make_invite
from .clock import Now, read_clock
from .config import BotConfig, SimulatorConfig
from .control import ControlApi
from .delays import Delay, Omission
from .entities import FORUM, Json, channel
from .faults import HttpDelay, HttpFault
from .gateway import Bot, Event, Gateway
from .mix import ActionContext, Mix
from .oauth2 import LoginClient, OAuth2
from .outbox import Cut, Raw
from .protocol import Connection, State
from .rest import RestApi
from .server import GatewayServer
from .sessions import Session
from .snowflakes import shard_of
from .traffic import Pacer

TRAFFIC_TICK_S = 0.005
TRAFFIC_SLICE = 64
SHUTDOWN_TIMEOUT_S = 1.0
BIG_TOPIC_CHARACTERS = 4096
JOIN_TRIES = 100
Shards = Iterable[int] | Literal["all"]


class Simulator:
    """A simulated Discord on one port. It runs in the event loop that entered it; leaving it closes all sockets."""

    def __init__(self, config: SimulatorConfig, clock: Callable[[], Now] = read_clock) -> None:
        self.config = config
        self.gateway = Gateway(config)
        self._clock = clock
        self._oauth2 = OAuth2(self.gateway, clock)
        self._server = GatewayServer(self.gateway, clock)
        self._rng = random.Random(f"{config.seed}:traffic")
        self._mixes: dict[str, Mix] = {}
        self._pacers: dict[str, Pacer] = {}
        self._total = Pacer(config.rate)
        self._paused = False
        self._runner: web.AppRunner | None = None
        self._task: asyncio.Task[None] | None = None
        self.port = 0

    @property
    def _own_url(self) -> str:
        return f"ws://{self.config.reached_at(self.port)}"

    @property
    def url(self) -> str:
        """The gateway's URL, as in the answer of /gateway/bot."""
        return self.gateway.url

    async def set_gateway(self, url: str | None = None, resume_url: str | None = None) -> None:
        """Sets the address in /gateway/bot's answers, and new sessions' resume address. "": its own address."""
        if url is not None:
            self.gateway.url = url or self._own_url
        if resume_url is not None:
            self.config.resume_url = resume_url

    @property
    def base_url(self) -> str:
        """The HTTP server's URL for clients."""
        return f"http://{self.config.reached_at(self.port)}"

    @property
    def api_url(self) -> str:
        """The base URL of the REST API, with version."""
        return f"{self.base_url}/api/v10"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        # Before the REST API, which answers 404 to what it does not know.
        self._oauth2.add_to(app)
        RestApi(self.gateway, self._clock, self._oauth2).add_to(app)
        ControlApi(self).add_to(app)
        app.router.add_get("/{tail:/*}", self._server.handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.config.host, self.config.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self.gateway.url = self._own_url
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        assert self._runner is not None
        self._task.cancel()
        try:
            with suppress(asyncio.CancelledError):
                await self._task
        finally:
            for connection in self._server.connections:
                connection.outbox.push(Cut())
            await self._runner.cleanup()
            self.gateway.journal.close()

    async def run_until(self, stop: asyncio.Event) -> None:
        """Returns when `stop` is set, or when the simulator has failed (leaving it then raises the error)."""
        assert self._task is not None
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({stopping, self._task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._server.keep_time())
            tasks.create_task(self._make_traffic())

    async def _make_traffic(self) -> None:
        while True:
            now = self._clock()
            due = [(bot, pacer.due(now.mono)) for key, pacer in self._pacers.items() if (bot := self._active(key))]
            total = self._total.due(now.mono)
            bots = [bot for bot in self.gateway.bots.values() if bot.world.guild_ids]
            if total and bots:
                due.append((self._rng.choice(bots), total % len(bots)))
                due.extend((bot, total // len(bots)) for bot in bots)
            for bot, number in due:
                for start in range(0, 0 if self._paused else number, TRAFFIC_SLICE):
                    self._act(bot, min(TRAFFIC_SLICE, number - start))
                    await asyncio.sleep(0)
            await asyncio.sleep(TRAFFIC_TICK_S)

    def _active(self, bot_id: str) -> Bot | None:
        return self.gateway.bots.get(bot_id)

    def _act(self, bot: Bot, number: int, mix: Mix | None = None) -> None:
        mix = mix or self._mixes.get(bot.id)
        if mix is None:
            mix = self._mixes[bot.id] = Mix(bot.world, random.Random(self._rng.getrandbits(64)))
        made = 0
        while made < number:
            now = self._clock()
            events = mix.next_events(now.wall_ms)
            if not events:
                return
            for event in events:
                self.gateway.publish(bot, event, now)
            made += len(events)

    async def set_traffic(self, rate: float, bot: str | None = None) -> None:
        """Sets the events a second: in total, shared evenly by all bots, or of one bot in addition. Ends a pause."""
        if bot is None:
            self._total.rate = rate
        else:
            self._pacers.setdefault(self.gateway.bot_named(bot).id, Pacer()).rate = rate
        self._paused = False

    async def pause_traffic(self) -> None:
        """Stops traffic until `set_traffic`. Then all events are in outboxes and journal, except those of a delay."""
        self._paused = True

    async def act(self, bot: str, number: int, seed: int | None = None) -> None:
        """Makes `number` events of the mix now: the bot's next ones, or with `seed` those of that seed."""
        owner = self.gateway.bot_named(bot)
        mix = None if seed is None else Mix(owner.world, random.Random(f"{self.config.seed}:{seed}"))
        self._act(owner, number, mix)

    async def quiescent(self) -> Json:
        """Whether all connected sessions have been sent everything, backfill included; and what is still queued."""
        connected = [session for bot in self.gateway.bots.values() for session in bot.sessions if session.outbox]
        backfill = sum(len(session.backfill) for session in connected)
        busy = sum(not writer.is_idle for writer in self._server.connections.values())
        delayed = sum(len(s.delay) for bot in self.gateway.bots.values() for s in bot.sessions if s.delay is not None)
        is_quiescent = not (backfill or busy or delayed)
        return {"quiescent": is_quiescent, "backfill_pending": backfill, "busy_sockets": busy, "delayed": delayed}

    def _context(self, bot: str, guild_id: int | str) -> tuple[Bot, ActionContext]:
        owner, now = self.gateway.bot_named(bot), self._clock()
        guild = owner.world.guild(int(guild_id))
        drop_expired(guild, now.wall_ms)
        return owner, ActionContext(owner.world, guild, self._rng, now.wall_ms)

    def _publish(self, owner: Bot, events: Iterable[Event]) -> None:
        now = self._clock()
        for event in events:
            self.gateway.publish(owner, event, now)

    async def join_member(
        self, *, bot: str, guild_id: int | str, code: str | None = None, vanity: bool = False, as_bot: bool = False
    ) -> str | None:
        """A user of the pool joins by this invite, by the vanity URL, as a bot, or by none of these.

        Returns the user's id, None when no user was free. KeyError when there is no such invite or vanity URL.
        """
        owner, action = self._context(bot, guild_id)
        if code is not None and code not in action.guild.invites:
            raise KeyError(f"no invite {code}")
        if vanity and not action.guild.base["vanity_url_code"]:
            raise KeyError("no vanity URL")
        method = JoinMethod(code, vanity, as_bot)
        events = next((made for _ in range(JOIN_TRIES) if (made := list(join(action, method)))), [])
        self._publish(owner, events)
        return next((str(event.data["user"]["id"]) for event in events if event.name == "GUILD_MEMBER_ADD"), None)

    async def make_invite(
        self, *, bot: str, guild_id: int | str, max_uses: int = 0, max_age: int = DAY_S, used: bool = False
    ) -> str:
        """Creates an invite and returns its code. With `used` a user joins by it before INVITE_CREATE is sent."""
        owner, action = self._context(bot, guild_id)
        invite = make_invite(action, max_uses=max_uses, max_age_s=max_age)
        created = invite_created(action, invite)
        if used:
            await self.join_member(bot=bot, guild_id=guild_id, code=invite["code"])
        self._publish(owner, [created])
        return str(invite["code"])

    async def delete_invite(self, *, bot: str, guild_id: int | str, code: str) -> None:
        """Deletes an invite. KeyError when there is none with this code."""
        owner, action = self._context(bot, guild_id)
        self._publish(owner, [delete_invite(action, code)])

    async def permit(self, *, bot: str, guild_id: int | str, permissions: int) -> None:
        """Changes the permissions of the bot's own role in a guild, and sends the event."""
        owner, action = self._context(bot, guild_id)
        own = action.guild.members[owner.id]["roles"]
        role = next(role for key, role in action.guild.roles.items() if key in own and role["managed"])
        role["permissions"] = str(permissions)
        self._publish(owner, [action.event("GUILD_ROLE_UPDATE", {"role": role, "guild_id": action.guild.id})])

    async def joins(self, bot: str) -> list[Json]:
        """How each user really joined the bot's guilds (`how`: invite, vanity, bot, none)."""
        return list(self.gateway.bot_named(bot).world.shared.joins)

    async def emit(self, *, bot: str, t: str, d: Json, guild_id: str | None = None, shard: int | None = None) -> int:
        """Sends an event to a guild's sessions, or to one shard's whatever their intents; returns how many got it."""
        owner, now = self.gateway.bot_named(bot), self._clock()
        if shard is None:
            return self.gateway.publish(owner, Event(t, d, int(guild_id) if guild_id else None, only=owner.id), now)
        return self.gateway.send_to_shard(owner, shard, t, d, now)

    async def big_guild(self, *, bot: str, megabytes: float) -> str:
        """The bot joins a guild whose GUILD_CREATE has at least this size; returns the guild's id."""
        owner, now = self.gateway.bot_named(bot), self._clock()
        guild = owner.world.join_guild()
        size = 0
        while size < megabytes * 1_000_000:
            made = channel(self._rng, owner.world.new_id(now.wall_ms), FORUM, position=len(guild.channels), parent=None)
            made["topic"] = f"{self._rng.getrandbits(BIG_TOPIC_CHARACTERS * 4):0{BIG_TOPIC_CHARACTERS}x}"
            guild.channels[made["id"]] = made
            size += BIG_TOPIC_CHARACTERS
        self.gateway.publish(owner, Event("GUILD_CREATE", {}, int(guild.id), joined=True), now)
        return guild.id

    async def burst(self, *, bot: str, events: int, shards: Shards = "all") -> int:
        """Prepares `events` compressed dispatches for each chosen connected session, then writes them at once.

        The event loop is blocked meanwhile. They are numbered and recorded like all others. Returns how many.
        ValueError when a session's events are delayed.
        """
        owner = self.gateway.bot_named(bot)
        chosen = {c.session.id: (c, c.session) for c in self._chosen(bot, shards) if c.session is not None}
        if any(session.delay is not None for _, session in chosen.values()):
            raise ValueError("a burst cannot be sent to a session whose events are delayed")
        held: dict[str, list[bytes]] = {session_id: [] for session_id in chosen}
        for _, session in chosen.values():
            self._fill(owner, session, held, events)
        writers = []
        for session_id, (connection, _) in chosen.items():
            writer = self._server.connections[connection]
            writer.prepare(held[session_id])
            writers.append(writer)
        for writer in writers:
            writer.release()
        return sum(len(payloads) for payloads in held.values())

    def _fill(self, owner: Bot, session: Session, held: dict[str, list[bytes]], events: int) -> None:
        guild_ids = owner.world.guilds_of_shard(session.shard, session.count)
        mix = Mix(owner.world, random.Random(self._rng.getrandbits(64)), guild_ids)
        mine = held[session.id]
        while len(mine) < events:
            now, before = self._clock(), len(mine)
            happened = mix.next_events(now.wall_ms)
            for event in happened:
                self.gateway.publish(owner, event, now, held)
            if not happened or (len(mine) == before and not session.intents):
                return

    def _sessions(
        self, bot: str | None, shards: Shards, count: int | None = None, session: str | None = None
    ) -> list[tuple[Bot, Session]]:
        """The sessions, connected or not, of these shards, of one shard count or all; or the one of this id."""
        owners = list(self.gateway.bots.values()) if bot is None else [self.gateway.bot_named(bot)]
        wanted = None if shards == "all" else {int(shard) for shard in shards}
        of_shards = ((o, s) for o in owners for s in o.sessions if wanted is None or s.shard in wanted)
        return [(o, s) for o, s in of_shards if count in (None, s.count) and session in (None, s.id)]

    def _chosen(
        self, bot: str | None, shards: Shards, count: int | None = None, session: str | None = None
    ) -> list[Connection]:
        """Live connections, also those whose session has ended without notice to the client."""
        owner = None if bot is None else self.gateway.bot_named(bot)
        wanted = None if shards == "all" else {int(shard) for shard in shards}
        return [
            connection
            for connection in self._server.connections
            if connection.state is State.LIVE
            and (owner is None or connection.bot is owner)
            and (wanted is None or connection.shard[0] in wanted)
            and (count is None or connection.shard[1] == count)
            and (session is None or (connection.session is not None and connection.session.id == session))
        ]

    async def send_raw(
        self,
        *,
        bot: str | None = None,
        shards: Shards = "all",
        text: str | None = None,
        data: bytes | None = None,
        payload: str | None = None,
        bomb_mb: int | None = None,
    ) -> int:
        """Sends invalid data; returns how many sockets received it.

        `text` and `data` are frames that bypass the compressor (corrupt for a compressed connection); `payload` is
        compressed (bad JSON, unknown ops); `bomb_mb` is a valid message of this many MiB that compresses very well.
        """
        chosen = self._chosen(bot, shards)
        for connection in chosen:
            if text is not None:
                connection.outbox.push(Raw(text.encode(), text=True))
            if data is not None:
                connection.outbox.push(Raw(data))
            if payload is not None:
                connection.outbox.push(payload.encode())
            if bomb_mb is not None:
                connection.outbox.push(b'{"t":null,"s":null,"op":99,"d":"%s"}' % (b"a" * (bomb_mb << 20)))
        return len(chosen)

    async def fault(
        self,
        kind: str,
        *,
        bot: str | None = None,
        shards: Shards = "all",
        count: int | None = None,
        session: str | None = None,
        code: int = 4000,
        seconds: float = 5.0,
        resumable: bool = False,
        status: int = 500,
        path: str = "/",
        delay: float = 1.0,
        acks_wait: bool = True,
        share: float = 0.1,
        types: Iterable[str] = ("PRESENCE_UPDATE", "TYPING_START"),
    ) -> int:
        """Injects a fault (docs/reference/simulator.md lists the kinds); returns how many connections it affects.

        Faults of sessions return how many sessions they affect. Raises ValueError for an unknown kind.
        """
        now = self._clock()
        if self._lasting_fault(kind, now.mono + seconds, status=status, path=path, delay=delay):
            return 0
        actions: dict[str, Callable[[Connection], None]] = {
            "drop": lambda c: c.outbox.push(Cut()),
            "reset": lambda c: c.outbox.push(Cut(reset=True)),
            "close": lambda c: c.close(code, "Fault", now),
            "op1": lambda c: c.ask_heartbeat(),
            "op7": lambda c: c.ask_reconnect(),
            "op9": lambda c: c.invalidate(resumable=resumable, now=now),
            "stop_ack": lambda c: setattr(c, "acks", False),
            "start_ack": lambda c: setattr(c, "acks", True),
            "stall": lambda c: setattr(c, "stalled_until", now.mono + seconds),
        }
        until, names = now.mono + seconds, frozenset(types)
        of_sessions: dict[str, Callable[[Bot, Session], None]] = {
            # Without notice to a connected client: it receives nothing more, and its next RESUME is refused.
            "invalidate_session": lambda b, s: self.gateway.end_session(b, s, now),
            "delay_events": lambda b, s: self.gateway.delay(b, s, Delay(delay, until, acks_wait, self._new_rng())),
            "omit_events": lambda b, s: setattr(s, "omission", Omission(share, until, names, self._new_rng())),
        }
        if kind in of_sessions:
            found = self._sessions(bot, shards, count, session)
            for owner, one in found:
                of_sessions[kind](owner, one)
            return len(found)
        if kind not in actions:
            raise ValueError(f"no such fault: {kind}")
        chosen = self._chosen(bot, shards, count, session)
        for connection in chosen:
            actions[kind](connection)
        return len(chosen)

    def _lasting_fault(self, kind: str, until: float, *, status: int, path: str, delay: float) -> bool:
        faults = self.gateway.faults
        if kind == "refuse_connections":
            faults.refuse_connections(until)
        elif kind == "http_status":
            faults.answer_http(HttpFault(path, status, until))
        elif kind == "http_delay":
            faults.delay_http(HttpDelay(path, delay, until))
        elif kind == "hello_delay":
            faults.delay_hello(delay, until)
        elif kind == "op7_before_hello":
            faults.reconnect_before_hello(until)
        elif kind == "shuffle_chunks":
            faults.shuffle_chunks(until)
        elif kind == "identify_invalid":
            faults.identify_invalid_until = until
        elif kind == "resume_invalid":
            faults.resume_invalid_until = until
        else:
            return False
        return True

    def _new_rng(self) -> random.Random:
        return random.Random(self._rng.getrandbits(64))

    async def add_bot(self, config: BotConfig) -> str:
        """Adds a bot and returns its application id. ValueError when id or token is taken.

        If its world exists already, the bot joins its guilds one by one, and the other bots there receive the events.
        """
        bot, now = self.gateway.add_bot(config), self._clock()
        world = bot.world
        for guild_id in [] if world.guild_ids else world.shared.guild_ids(config.guilds):
            for event in arrive(ActionContext(world, world.shared.guild(guild_id), self._rng, now.wall_ms)):
                self.gateway.publish(bot, event, now)
        return bot.id

    async def change_bot(
        self,
        bot: str,
        *,
        token: str | None = None,
        recommended_shards: int | None = None,
        max_concurrency: int | None = None,
        allowed_intents: int | None = None,
        remaining: int | None = None,
        shard_multiple: int | None = None,
    ) -> None:
        """Changes a bot. A new token ends all sessions (close 4004), like a token reset in Discord's portal."""
        found = self.gateway.bot_named(bot)
        config = found.config
        config.recommended_shards = recommended_shards or config.recommended_shards
        config.max_concurrency = max_concurrency or config.max_concurrency
        config.shard_multiple = shard_multiple or config.shard_multiple
        if allowed_intents is not None:
            config.allowed_intents = allowed_intents
        if remaining is not None:
            found.budget.set_remaining(remaining, self._clock().mono)
        if token is not None:
            self.gateway.revoke_token(found, self._clock())
            found.token = config.token = token

    async def stats(self) -> Json:
        """Counts by bot, and in total."""
        now = self._clock()
        return {
            "bots": self.gateway.stats(now),
            "journal": len(self.gateway.journal),
            "connections": len(self._server.connections),
            "rate": self._total.rate,
            "paused": self._paused,
        }

    async def sessions(self, bot: str | None = None) -> list[Json]:
        """The live sessions, connected or resumable."""
        owners = list(self.gateway.bots.values()) if bot is None else [self.gateway.bot_named(bot)]
        return [
            {
                "bot": owner.id,
                "shard": session.shard,
                "count": session.count,
                "session": session.id,
                "seq": session.seq,
                "oldest_seq": session.oldest_seq,
                "intents": session.intents,
                "moment": session.moment,
                "connected": session.outbox is not None,
                "delayed": 0 if session.delay is None else len(session.delay),
                "backfill_pending": len(session.backfill),
            }
            for owner in owners
            for session in owner.sessions
        ]

    async def journal(self, *, bot: str | None = None, since: int = 0) -> list[dict[str, Any]]:
        """The journal's entries from number `since`, of one bot (application id or name) or all."""
        bot_id = None if bot is None else self.gateway.bot_named(bot).id
        return list(self.gateway.journal.entries(bot=bot_id, since=since))

    async def ledger(self, *, bot: str | None = None, kind: str | None = None) -> list[dict[str, Any]]:
        """The ledger's records: identify, resume, violation and close."""
        bot_id = None if bot is None else self.gateway.bot_named(bot).id
        return self.gateway.ledger.as_json(bot=bot_id, kind=kind)

    async def guild_state(self, bot: str, guild_id: int | str, *, as_seen: bool = False) -> Json:
        """A copy of a guild's authoritative state, or of the bot's view of it. KeyError when the bot is not in it."""
        state = self.gateway.bot_named(bot).world.guild_state(int(guild_id), as_seen=as_seen)
        copied: Json = msgspec.json.decode(msgspec.json.encode(state))
        return copied

    async def set_login(self, *, bot: str, secret: str, redirect_uris: list[str], user: str) -> str:
        """Makes the bot's application an OAuth2 client; returns its id. `user`: who agrees next; "": they decline."""
        client_id = self.gateway.bot_named(bot).id
        self._oauth2.clients[client_id] = LoginClient(secret, redirect_uris, user)
        return client_id

    async def guild_ids(self, bot: str, shard: int = 0, count: int = 1) -> list[str]:
        """The ids of a bot's guilds, or of one shard's."""
        ids = self.gateway.bot_named(bot).world.guild_ids
        return [str(guild_id) for guild_id in ids if shard_of(guild_id, count) == shard]
