"""What a shard does with each event that it reads: looks at it once, and hands it to the publisher."""

import msgspec

from sandwich_node.cache.context import Op
from sandwich_node.events.arrivals import ShardGuilds
from sandwich_node.events.filters import CACHE_ONLY, EventFilter
from sandwich_node.invites.lookup import InviteLookup
from sandwich_node.invites.wire import EVENT_TYPES
from sandwich_node.rpc.answers import ANSWERS
from sandwich_node.rpc.shard import ShardCommands
from sandwich_node.shards.caching import ShardCaching
from sandwich_node.sinks.publisher import ShardPublisher
from sandwich_sdk.wire.frame import session_hash

_OF_GUILDS = frozenset({"READY", "GUILD_CREATE", "GUILD_DELETE"})


class ShardIntake:
    """The connection's sink. `rules`, `guilds`, `caching` and `invites` may be exchanged while it runs."""

    def __init__(
        self, publisher: ShardPublisher, commands: ShardCommands, rules: EventFilter, *, bot: str, guilds: int
    ) -> None:
        self.rules = rules
        self.guilds = ShardGuilds(guilds)
        self.caching: ShardCaching | None = None
        self.invites: InviteLookup | None = None
        self.bot = bot
        self.session_id = ""
        self._publisher = publisher
        self._commands = commands

    def begin_session(self, session_id: str, seq: int) -> None:
        """Events are of this session from now on; it was read up to `seq`."""
        self.session_id = session_id
        session = session_hash(session_id)
        self._publisher.buffer.start_session(session, seq, bot=self.bot)
        if self.invites is not None:
            self.invites.begin(session, self.bot)

    def dispatch(self, raw: bytes, data: msgspec.Raw, type: str, seq: int, session_id: str) -> bool:
        """Take one event from the connection."""
        if session_id is not self.session_id and session_id != self.session_id:
            self.begin_session(session_id, 0)
        rules = self.rules
        lane = rules.lane(type)
        ask: object = None
        if type in _OF_GUILDS:
            ask = self._of_guilds(type, bytes(data), is_new=seq > self._publisher.buffer.last_seq)
        if self._commands.is_waiting and type in ANSWERS:
            self._commands.observe(type, bytes(data))
        invites = self.invites
        if invites is not None and type in EVENT_TYPES and seq > self._publisher.buffer.last_seq:
            ask = invites.observe(type, bytes(data), is_told=bool(lane)) or ask
        if lane is None:
            return self._publisher.push(b"", type, seq)
        if type == "GUILD_MEMBERS_CHUNK" and self._commands.is_for_cache(bytes(data)):
            lane = CACHE_ONLY
        elif rules.looks_inside(type):
            verdict = rules.judge(type, data, lane)
            lane, ask = verdict.lane, verdict.ask
        ops: tuple[Op, ...] = ()
        feed = self.caching.feed if self.caching is not None else None
        if feed is not None and feed.concerns(type):
            ops = feed.translate(type, bytes(data))
        size = len(raw) if ops else 0
        return self._publisher.push(raw if lane else b"", type, seq, lane=lane, ops=ops, size=size, ask=ask)

    def _of_guilds(self, type: str, data: bytes, *, is_new: bool) -> object:
        """What tells of whole guilds; whether the guild was announced, of one that comes or goes."""
        if self.caching is not None:
            self.caching.observe(type, data)
        return self.guilds.take(type, data) if is_new and type != "READY" else None

    async def drained(self) -> None:
        """Wait until the publisher has room."""
        invites = self.invites
        if invites is not None:
            invites.is_reading(False)
        try:
            await self._publisher.drained()
        finally:
            if invites is not None:
                invites.is_reading(True)
