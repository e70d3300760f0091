"""Reads a shard's guilds again for the cache, without touching the session that streams.

Discord sends a whole guild only when a session begins. So a second session is started beside the first, on the same
shard (Discord: Gateway, Sharding: several sessions may share one), through the IDENTIFY queue. Its READY and
GUILD_CREATEs go to the cache alone, then it is ended. The streaming session loses nothing and is not resumed.
"""

import asyncio
import logging
from collections.abc import Callable

import msgspec

from sandwich_coordinator.ids import ShardId
from sandwich_node import ipc
from sandwich_node.cache.feed import CacheFeed
from sandwich_node.gateway import effects as fx
from sandwich_node.gateway import events as ev
from sandwich_node.gateway.effects import State
from sandwich_node.gateway.machine import ShardMachine
from sandwich_node.open_files import SocketRoom
from sandwich_node.shards.connection import ShardConnection, WebSocketClient

_log = logging.getLogger(__name__)

QUIET_S = 10.0
"""A guild that has not come for so long is in an outage. The streaming session receives it when the outage ends."""
TOTAL_S = 300.0
END_S = 5.0


class _Listed(msgspec.Struct):
    id: str


class _Ready(msgspec.Struct):
    guilds: list[msgspec.Raw]


_ready = msgspec.json.Decoder(_Ready).decode
_guild = msgspec.json.Decoder(_Listed).decode


def _id_of(guild: msgspec.Raw) -> str | None:
    """The guild's id; None where it cannot be read."""
    try:
        return _guild(guild).id
    except msgspec.MsgspecError:
        return None


def _listed(data: msgspec.Raw) -> set[str] | None:
    """The ids of READY's guilds; None where there is no list."""
    try:
        return {guild for each in _ready(data).guilds if (guild := _id_of(each)) is not None}
    except msgspec.MsgspecError:
        return None


class CacheResync:
    """One resync. `send` passes messages to the agent and must not wait.

    `has_identified`: a session start was spent.
    """

    def __init__(
        self,
        key: ShardId,
        machine: ShardMachine,
        feed: CacheFeed,
        http: WebSocketClient,
        *,
        send: Callable[[ipc.ToAgent], None],
        clock: Callable[[], float],
        room: SocketRoom | None = None,
    ) -> None:
        """`machine` has no session, and the configuration of the shard's own machine."""
        self._key = key
        self._feed = feed
        self._send = send
        self._connection = ShardConnection(machine, http=http, sink=self, observer=self, clock=clock, room=room)
        self._awaited: set[str] | None = None
        self._moved = asyncio.Event()
        self._over = ""
        self._deadline: asyncio.Timeout | None = None
        self.wants_identify = False
        self.has_identified = False

    def gateway_moved(self, url: str) -> None:
        """The gateway has another address from now on."""
        self._connection.post(ev.GatewayMoved(url))

    def identify_granted(self) -> None:
        """The turn to IDENTIFY came."""
        self.wants_identify = False
        self.has_identified = True
        if self._deadline is not None:
            self._deadline.reschedule(asyncio.get_running_loop().time() + TOTAL_S)
        self._feed.begin_resync()
        self._connection.post(ev.IdentifyGranted())

    async def run(self) -> bool:
        """Read everything. False when it did not finish: try again later."""
        complete = False
        async with asyncio.TaskGroup() as group:
            running = group.create_task(self._connection.run())
            try:
                async with asyncio.timeout(None) as self._deadline:
                    complete = await self._until_read()
            except TimeoutError:
                self._over = f"not done in {TOTAL_S:.0f} s"
            self._connection.post(ev.StopRequested("the cache was read", keep_session=False))
            await asyncio.wait([running], timeout=END_S)
            running.cancel()
        self._feed.end_resync(complete=complete)
        if not complete:
            _log.warning("the cache of shard %s was not resynced: %s", self._key, self._over)
        return complete

    async def _until_read(self) -> bool:
        while not self._over:
            if self._awaited is not None and not self._feed.refilling:
                self._over = "too many events came meanwhile"
                return False
            if self._awaited is not None and not self._awaited:
                return True
            self._moved.clear()
            try:
                async with asyncio.timeout(QUIET_S if self._awaited is not None else None):
                    await self._moved.wait()
            except TimeoutError:
                return self._feed.refilling
        return False

    # --- the connection's receiver and observer ---------------------------------------------------------------------

    def dispatch(
        self, raw: bytes, data: msgspec.Raw, type: str, seq: int, session_id: str, *, damaged: bool = False
    ) -> bool:
        """Take what the cache needs of this session: its list of guilds, and each guild once."""
        if type == "READY":
            self._awaited = _listed(data)
            if self._awaited is None:
                self._stop("its READY has no list of guilds")
                return True
        elif type == "GUILD_CREATE" and self._awaited is not None:
            self._awaited.discard(_id_of(data) or "")
        else:
            return True
        self._feed.refill(type, bytes(data))
        self._moved.set()
        return self._feed.has_room

    async def drained(self) -> None:
        """Wait until the cache has taken it."""
        await self._feed.drained()

    def observe(self, report: fx.Report) -> None:
        """Follow the machine. There is one attempt and no second one."""
        match report:
            case fx.RequestIdentify():
                self.wants_identify = True
                self._send(ipc.IdentifyWanted(self._key, spare=True))
            case fx.IdentifySent():
                self._send(ipc.IdentifySent(self._key))
            case fx.IdentifyWithdrawn():
                self.wants_identify = False
                self._send(ipc.IdentifyWithdrawn(self._key))
            case fx.StateChanged(State.WAITING, reason) if self.has_identified:
                self._stop(reason)
            case fx.Failed(_, reason):
                self._stop(reason)
            case _:
                pass

    def _stop(self, reason: str) -> None:
        self._over = self._over or reason
        self._moved.set()

    def abandon(self, reason: str) -> None:
        """It is not needed any more."""
        self._stop(reason)
