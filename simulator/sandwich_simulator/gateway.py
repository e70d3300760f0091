"""The simulated gateway without its sockets: bots, sessions, and which session receives what.

Pure: it takes `now` and fills outboxes; it never waits and never reads a clock. The shell calls `pump` until it returns
False, which sends backfills in small steps, and calls `expire` regularly.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from . import event_routing, visibility
from .action_context import ActionContext
from .actions import voice
from .clock import Now
from .config import BotConfig, SimulatorConfig
from .delays import ACK, Delay, Dispatch
from .entities import Json
from .events import Event
from .faults import Faults
from .identify_rules import AUTHENTICATION_FAILED, Identify, IdentifyBuckets, SessionBudget, SlidingWindow
from .intents import GUILD_MEMBERS, GUILDS, hides_content, is_delivered, own_part, without_content
from .journal import Journal, Ledger, Record, SessionName
from .outbox import Close, Outbox
from .sessions import ResumeOutcome, Session, SessionStore, replay_capacity
from .snowflakes import shard_of
from .world import World

__all__ = ["Bot", "Event", "Gateway"]

GATEWAY_VERSION = 10
_encode = msgspec.json.encode


@dataclass(slots=True, eq=False)
class Bot:
    """One bot: its world, sessions and limits."""

    config: BotConfig
    world: World
    sessions: SessionStore
    buckets: IdentifyBuckets
    budget: SessionBudget
    token: str | None = field(repr=False)
    """None after Discord has reset it."""
    member_requests: dict[int, SlidingWindow] = field(default_factory=dict)
    dispatched: int = 0

    @property
    def id(self) -> str:
        """The application id."""
        return self.world.id


class _Sending:
    """One event on its way to many sessions. A payload that sessions share is encoded once."""

    def __init__(self, event: Event, number: int, now: Now, held: Mapping[str, list[bytes]]) -> None:
        self.event = event
        self.number = number
        self.now = now
        self.held = held
        self._encoded: tuple[Json, bytes] | None = None

    def encode(self, data: Json) -> bytes:
        """A payload as JSON."""
        if self._encoded is None or self._encoded[0] is not data:
            self._encoded = data, _encode(data)
        return self._encoded[1]


class Gateway:
    """The gateway's state: bots, journal, ledger, faults."""

    def __init__(self, config: SimulatorConfig) -> None:
        self.config = config
        self.bots: dict[str, Bot] = {}
        self.journal = Journal(config.journal_path)
        self.ledger = Ledger()
        self.faults = Faults()
        self.url = ""
        self._rng = random.Random(f"{config.seed}:sessions")
        self._events = 0
        """The number of the last event, of all worlds."""
        self._backfilling: list[Session] = []
        self._delayed: list[tuple[Bot, Session]] = []
        for bot in config.bots:
            self.add_bot(bot)

    def add_bot(self, config: BotConfig) -> Bot:
        """Adds a bot; without guilds if its world exists already. ValueError when its id or token is taken."""
        if config.id in self.bots or self.bot_of_token(config.token) is not None:
            raise ValueError("a bot of this id or token exists")
        shared_worlds = {b.config.world: b.world.shared for b in self.bots.values() if b.config.world}
        shared = shared_worlds.get(config.world)
        bot = Bot(
            config=config,
            world=World(config, self.config.seed, shared, is_late=shared is not None and shared.moment > 0),
            sessions=SessionStore(window_s=self.config.resume_window_s),
            buckets=IdentifyBuckets(self.config.identify_interval_s),
            budget=SessionBudget(config.session_limit, self.config.budget_window_s),
            token=config.token,
        )
        self.bots[config.id] = bot
        return bot

    def bot_of_token(self, token: str) -> Bot | None:
        """The bot with this token; None when there is none."""
        return next((bot for bot in self.bots.values() if bot.token == token), None)

    def bot_named(self, name: str) -> Bot:
        """The bot of this application id or name. KeyError when there is none."""
        found = self.bots.get(name) or next((b for b in self.bots.values() if b.config.name == name), None)
        if found is None:
            raise KeyError(f"no bot {name}")
        return found

    def guilds_on_shard(self, bot: Bot, shard: int, count: int) -> int:
        """The current number of guilds of the shard."""
        return sum(1 for guild_id in bot.world.guild_ids if shard_of(guild_id, count) == shard)

    def start_session(self, bot: Bot, identify: Identify, outbox: Outbox, now: Now) -> Session:
        """Starts a session, sends READY and queues its backfill."""
        guild_ids = bot.world.guilds_of_shard(identify.shard, identify.count)
        bot.world.shared.moment += 1
        session_id = f"{self._rng.getrandbits(128):032x}"
        name = SessionName(bot=bot.id, shard=identify.shard, count=identify.count, session=session_id)
        session = Session(
            id=session_id,
            bot=bot.id,
            shard=identify.shard,
            count=identify.count,
            intents=identify.intents,
            large_threshold=identify.large_threshold,
            journal_number=self.journal.open_session(name),
            replay_events=self.config.replay_events or replay_capacity(len(guild_ids)),
            created_at=now.mono,
            moment=bot.world.shared.moment,
            outbox=outbox,
        )
        self._note_presence("online", bot, session, now)
        bot.sessions.add(session)
        ready = self._ready(bot, identify, session_id, guild_ids)
        self._number(bot, session, Dispatch("READY", _encode(ready)), now)
        if identify.intents & GUILDS:
            session.backfill.extend(guild_ids)
            self._backfilling.append(session)
        return session

    def _ready(self, bot: Bot, identify: Identify, session_id: str, guild_ids: list[int]) -> Json:
        ready: Json = {
            "v": GATEWAY_VERSION,
            "user_settings": {},
            "user": {**bot.world.me, "verified": True, "mfa_enabled": True, "flags": 0, "email": None},
            "session_type": "normal",
            "session_id": session_id,
            "resume_gateway_url": self.config.resume_url or self.url,
            "relationships": [],
            "private_channels": [],
            "presences": [],
            "guilds": [{"unavailable": True, "id": str(guild_id)} for guild_id in guild_ids],
            "guild_join_requests": [],
            "geo_ordered_rtc_regions": ["us-west"],
            "application": {"id": bot.id, "flags": 0x8000 | 0x2000 | 0x80000},
            "_trace": ['["gateway-simulator",{"micros":0}]'],
        }
        if identify.is_sharded:
            ready["shard"] = [identify.shard, identify.count]
        return ready

    def others_of_shard(self, bot: Bot, shard: tuple[int, int], now: Now) -> str:
        """Existing sessions of this (id, count) at an IDENTIFY, for the ledger: " resumable", " beside", both or "".

        A disconnected session could have been resumed, and is wasted; a connected one continues beside the new one.
        """
        there = bot.sessions.by_count.get(shard[1], {}).get(shard[0], ())
        waits = any(s.outbox is None and not s.is_expired(now.mono, self.config.resume_window_s) for s in there)
        return " resumable" * waits + " beside" * any(s.outbox is not None for s in there)

    def judge_resume(self, token: str, session_id: str, seq: int, now: Now) -> tuple[Bot | None, ResumeOutcome]:
        """Whether a RESUME is accepted, and for which bot. A valid token of another bot is a wrong token."""
        bot = self.bot_of_token(token)
        if bot is None:
            return None, ResumeOutcome.WRONG_TOKEN
        outcome = bot.sessions.judge_resume(session_id, seq, now.mono)
        if outcome is ResumeOutcome.UNKNOWN and any(b.sessions.get(session_id) for b in self.bots.values()):
            return bot, ResumeOutcome.WRONG_TOKEN
        return bot, outcome

    def resume_session(self, bot: Bot, session: Session, seq: int, outbox: Outbox, now: Now) -> None:
        """Continues a session on this socket: closes an older socket, sends the missed dispatches, then RESUMED."""
        if session.outbox is not None:
            session.outbox.push(Close(4000, "Session resumed elsewhere"))
        session.outbox = outbox
        session.disconnected_at = None
        for payload in session.replay(seq):
            outbox.push(payload)
        resumed = {"_trace": ['["gateway-simulator",{"micros":0}]']}
        self._number(bot, session, Dispatch("RESUMED", _encode(resumed)), now)

    def end_session(self, bot: Bot, session: Session, now: Now) -> None:
        """Ends the session: it cannot be resumed and receives nothing more. Other sessions of the bot go on."""
        if bot.sessions.get(session.id) is None:
            return
        bot.sessions.remove(session)
        session.backfill.clear()
        session.delay = None
        self._leave_voice(bot, session, now)
        self._note_presence("offline", bot, session, now)

    def _leave_voice(self, bot: Bot, session: Session, now: Now) -> None:
        """A bot leaves the voice channels that it joined by a session when this session ends."""
        for guild in list(bot.world.known_guilds()):
            state = guild.voice_states.get(bot.id)
            if state is not None and state["session_id"] == session.id:
                action = ActionContext(bot.world, guild, bot.world.rng, now.wall_ms)
                for event in voice.move(action, bot.id, None):
                    self.publish(bot, event, now)

    def _note_presence(self, status: str, bot: Bot, session: Session, now: Now) -> None:
        """A bot is online in a guild as long as it has a session of it. Notes how many guilds this one changes."""
        others = bot.sessions.by_count.items()
        guilds = bot.world.guilds_of_shard(session.shard, session.count)
        alone = sum(not any(shard_of(guild_id, count) in shards for count, shards in others) for guild_id in guilds)
        if alone:
            shard = (session.shard, session.count)
            self.note("presence", status, now=now, bot=bot, shard=shard, session=session.id, detail=f"guilds={alone}")

    def revoke_token(self, bot: Bot, now: Now) -> None:
        """As Discord does to a bot that exceeds its budget: all sessions end and the token becomes invalid."""
        bot.token = None
        for session in bot.sessions:
            if session.outbox is not None:
                session.outbox.push(Close(AUTHENTICATION_FAILED, "Authentication failed."))
            self.end_session(bot, session, now)

    def send_to(self, bot: Bot, session: Session, name: str, data: Json, now: Now) -> None:
        """Sends one dispatch to this session only, whatever its intents."""
        self._deliver(bot, session, Dispatch(name, _encode(data), _guild_of(data)), now)

    def send_to_shard(self, bot: Bot, shard: int, name: str, data: Json, now: Now) -> int:
        """Sends one event to all sessions of this shard id, whatever their intents; returns how many there are."""
        sessions = [session for session in bot.sessions if session.shard == shard]
        self._events += 1
        dispatch = Dispatch(name, _encode(data), _guild_of(data), self._events, len(sessions))
        for session in sessions:
            self._deliver(bot, session, dispatch, now)
        return len(sessions)

    def _deliver(
        self, bot: Bot, session: Session, dispatch: Dispatch, now: Now, held: list[bytes] | None = None
    ) -> None:
        if session.delay is None:
            self._number(bot, session, dispatch, now, held)
        else:
            session.delay.push(dispatch, now.mono)

    def _number(
        self, bot: Bot, session: Session, dispatch: Dispatch, now: Now, held: list[bytes] | None = None
    ) -> None:
        """Gives the event its sequence in the session, and sends it."""
        if held is None:
            payload = session.next_dispatch(dispatch.name, dispatch.data)
        else:
            payload = session.keep_unsent(dispatch.name, dispatch.data)
            held.append(payload)
        bot.dispatched += 1
        self.journal.record(session.journal_number, session.seq, dispatch, now.wall_ns, payload)

    def delay(self, bot: Bot, session: Session, delay: Delay) -> None:
        """Delays the events of a session from now on. While a delay lasts, another one only changes its settings."""
        if session.delay is None:
            session.delay = delay
            self._delayed.append((bot, session))
        else:
            old = session.delay
            old.max_s, old.until, old.acks_wait = delay.max_s, delay.until, delay.acks_wait

    def deliver_due(self, now: Now) -> None:
        """Sends the delayed events that are due."""
        for bot, session in self._delayed:
            delay = session.delay
            if delay is None:
                continue
            for item in delay.due(now.mono):
                if isinstance(item, Outbox):
                    item.push(ACK)
                else:
                    self._number(bot, session, item, now)
            if delay.is_over(now.mono):
                session.delay = None
        self._delayed = [(bot, session) for bot, session in self._delayed if session.delay is not None]

    def publish(self, bot: Bot, event: Event, now: Now, held: Mapping[str, list[bytes]] | None = None) -> int:
        """Sends an event to each session that should receive it, of all bots in this world; returns how many did.

        Changes of visibility that follow from it are sent after it. Dispatches of sessions named in `held` are appended
        there instead of being sent; the caller writes them.
        """
        shared, guild_id = bot.world.shared, event.guild_id
        shared.moment += 1
        guild = None if guild_id is None else shared.known(guild_id)
        outcome = event_routing.record(guild, event, shared.moment, redacts_loss=shared.config.redacts_lost_access)
        self._events += 1
        sending = _Sending(event, self._events, now, held or {})
        owed = 0
        if event.only is not None or guild_id is None:
            owed = self._send(self.bots[event.only or bot.id], event.data, sending)
        else:
            for world in shared.worlds:
                if guild_id in world.guild_ids and world.id not in outcome.excluded:
                    data = event_routing.payload_for(guild, event, world.id)
                    if data is not None:
                        owed += self._send(self.bots[world.id], data, sending)
        for more in outcome.events:
            owed += self.publish(bot, more, now, held)
        return owed

    def _send(self, bot: Bot, data: Json, sending: "_Sending") -> int:
        """Sends one event to those sessions of one bot whose intents include it."""
        event, me = sending.event, bot.id
        name, guild_id = event.name, event.guild_id
        sessions = [
            session
            for count, shards in bot.sessions.by_count.items()
            for session in shards.get(0 if guild_id is None else shard_of(guild_id, count), ())
        ]
        wanted = [
            session
            for session in sessions
            if is_delivered(name, data, in_guild=guild_id is not None, intents=session.intents, self_id=me)
        ]
        wanted = self._without_omitted(wanted, name, sending.now)
        for session in wanted:
            bits = session.intents
            if name == "GUILD_CREATE" and guild_id is not None and not data:
                encoded = self._guild_create(bot, guild_id, session, joined=event.joined)
            elif hides_content(name, data, intents=bits, self_id=me):
                encoded = _encode(without_content(data))
            elif name == "THREAD_MEMBERS_UPDATE" and not bits & GUILD_MEMBERS:
                encoded = _encode(own_part(data, me))
            else:
                encoded = sending.encode(data)
            dispatch = Dispatch(name, encoded, guild_id or 0, sending.number, len(sessions))
            self._deliver(bot, session, dispatch, sending.now, sending.held.get(session.id))
        return len(wanted)

    def _without_omitted(self, sessions: list[Session], name: str, now: Now) -> list[Session]:
        """The sessions without at most one that does not get this event; a session that is alone gets all."""
        if len(sessions) < 2:
            return sessions
        omitting = (s for s in sessions if s.omission is not None and s.omission.omits(name, now.mono))
        omitted = next(omitting, None)
        return [session for session in sessions if session is not omitted]

    def _guild_create(self, bot: Bot, guild_id: int, session: Session, *, joined: bool) -> bytes:
        guild = bot.world.peek(guild_id)
        if guild.unavailable:
            return _encode({"unavailable": True, "id": guild.id})
        held = guild.views[bot.id]
        held.created = bot.world.shared.moment
        held.stale.clear()
        made = visibility.guild_create(
            guild, bits=session.intents, large_threshold=session.large_threshold, self_id=bot.id, joined=joined
        )
        return _encode(made)

    def pump(self, now: Now, *, guilds: int) -> bool:
        """Sends up to `guilds` GUILD_CREATEs of backfills, round robin; False when none are left."""
        for _ in range(guilds):
            if not self._backfilling:
                return False
            session = self._backfilling.pop(0)
            if not session.backfill:
                continue
            self._backfill_one(self.bots[session.bot], session, session.backfill.popleft(), now)
            self._backfilling.append(session)
        return bool(self._backfilling)

    def _backfill_one(self, bot: Bot, session: Session, guild_id: int, now: Now) -> None:
        if not bot.world.has_guild(guild_id):
            self._backfill(bot, session, guild_id, "GUILD_DELETE", _encode({"id": str(guild_id)}), now)
        elif bot.world.shared.is_silent(guild_id):
            pass
        elif bot.world.is_unavailable(guild_id):
            name = "GUILD_CREATE" if bot.world.shared.config.outage_stubs else "GUILD_DELETE"
            encoded = _encode({"unavailable": True, "id": str(guild_id)})
            self._backfill(bot, session, guild_id, name, encoded, now)
        else:
            encoded = self._guild_create(bot, guild_id, session, joined=False)
            self._backfill(bot, session, guild_id, "GUILD_CREATE", encoded, now)

    def _backfill(self, bot: Bot, session: Session, guild_id: int, name: str, data: bytes, now: Now) -> None:
        self._deliver(bot, session, Dispatch(name, data, guild_id), now)

    def expire(self, now: Now) -> None:
        """Removes the sessions whose resume window has passed."""
        for bot in self.bots.values():
            for session in bot.sessions.expired(now.mono):
                self.end_session(bot, session, now)

    def may_request_all_members(self, bot: Bot, guild_id: int, now: Now) -> float:
        """Counts a request for a guild's whole member list. Returns 0, or the seconds to wait when it is too early."""
        window = bot.member_requests.setdefault(guild_id, SlidingWindow(1, self.config.request_members_interval_s))
        return 0.0 if window.try_take(now.mono) else window.retry_after(now.mono)

    def note(
        self,
        kind: str,
        outcome: str,
        *,
        now: Now,
        bot: Bot | None = None,
        shard: tuple[int, int] = (-1, 0),
        session: str = "",
        detail: str = "",
    ) -> None:
        """Adds one record to the ledger; `shard` is (id, count)."""
        self.ledger.add(
            Record(
                ns=now.wall_ns,
                kind=kind,
                bot=bot.id if bot else "",
                shard=shard[0],
                count=shard[1],
                outcome=outcome,
                session=session,
                detail=detail,
            )
        )

    def stats(self, now: Now) -> dict[str, Any]:
        """Counts by bot, keyed by application id."""
        return {bot.id: self._bot_stats(bot, now) for bot in self.bots.values()}

    def _bot_stats(self, bot: Bot, now: Now) -> dict[str, Any]:
        connected = [s for s in bot.sessions if s.outbox is not None]
        resumes = self.ledger.outcomes("resume", bot.id)
        return {
            "name": bot.config.name,
            "guilds": len(bot.world.guild_ids),
            "connected_shards": sorted([s.shard, s.count] for s in connected),
            "connected": len(connected),
            "sessions": len(bot.sessions),
            "backfill_pending": sum(len(s.backfill) for s in bot.sessions),
            "dispatched": bot.dispatched,
            "identifies": self.ledger.count("identify", bot=bot.id, outcome="ok"),
            "identifies_refused": self.ledger.count("identify", bot=bot.id)
            - self.ledger.count("identify", bot=bot.id, outcome="ok"),
            "resumes_ok": resumes.get("ok", 0),
            "resumes_failed": sum(resumes.values()) - resumes.get("ok", 0),
            "violations": self.ledger.outcomes("violation", bot.id),
            "remaining": bot.budget.remaining(now.mono),
            "reset_after_ms": bot.budget.reset_after_ms(now.mono),
            "token_valid": bot.token is not None,
        }


def _guild_of(data: Json) -> int:
    """The guild that a payload names; 0 for none. A test may send any JSON."""
    value = data.get("guild_id") if isinstance(data, dict) else None
    return int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 20 else 0
