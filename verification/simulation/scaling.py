"""Changes of the shard count among all other faults: each guild's events are in the stream once, in order.

Discord is modelled with guilds here: an event goes to every session that has its guild, to each at its own delay, and
an acknowledged heartbeat is behind what was sent before it. Losses are allowed only where a gap frame reports them;
what the old group lost there, the new one may publish late.
"""

import asyncio
import random
import sys
from collections import defaultdict
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any

import msgspec

from sandwich_coordinator.ids import ShardId
from sandwich_coordinator.ranges import parse_ranges
from sandwich_coordinator.store.base import Put
from sandwich_coordinator.types import AppRecord, GroupRecord, ShardsSpec
from sandwich_sdk.wire.frame import inflate, session_hash, split_events
from sandwich_sdk.wire.headers import FrameHeaders
from verification.simulation.checks import Journal
from verification.simulation.discord import IDENTIFY_EVERY_S, THRESHOLD_MIN, URL, Discord, Session, Socket
from verification.simulation.log import Stream, _Chain
from verification.simulation.loop import run_virtual
from verification.simulation.run import KEYS, Outcome, Simulation

SPREAD_S = 0.05
"""How much later one session may be sent an event than another."""
TICK_S = 1e-6
GUILDS = 8
SHARDS_MAX = 6
FAULTS_S = 150.0
"""Long enough for some changes: each needs an IDENTIFY of each new shard."""
SCALE_EVERY_S = 45.0
UNSTORED_S = 5.0
"""A session whose node dies before its READY is stored is over within this."""


def simulate_scaling(seed: int) -> Outcome:
    """Run one seed to its end on virtual time."""
    return run_virtual(Scaling(seed).run())


@dataclass(slots=True)
class GuildSession(Session):
    """A session with guilds. `free_at`: when it may be sent its next event.

    `began`: the number of the last event before it, and `began_at` the time; `numbers`: those that it was sent, by
    sequence.
    """

    count: int = 1
    guilds: frozenset[int] = frozenset()
    free_at: float = 0.0
    began: int = 0
    began_at: float = 0.0
    numbers: list[tuple[int, int]] = field(default_factory=list)

    def dispatch(self, name: str, data: Any) -> None:
        """See `Session.dispatch`."""
        if name == "MESSAGE_CREATE":
            self.numbers.append((self.seq + 1, int(data["id"])))
        super(GuildSession, self).dispatch(name, data)


class GuildSocket(Socket):
    """A connection whose acknowledgements are behind what was sent to any session before."""

    def _arrived(self, message: dict[str, Any]) -> None:
        if message["op"] == 1:
            ack = '{"op":11,"t":null,"s":null,"d":null}'
            asyncio.get_running_loop().call_later(SPREAD_S, self.deliver, ack, context=Context())
        else:
            super()._arrived(message)


class GuildDiscord(Discord):
    """Discord with guilds. `owed`: of each bot's guilds, the numbers of the events that some session was sent."""

    def __init__(self, journal: Journal, rng: random.Random, *, apps: dict[str, int], **settings: Any) -> None:
        super().__init__(journal, rng, apps=apps, **settings)
        self.guilds = [(100 + index << 22) + index for index in range(GUILDS)]
        self.owed: dict[tuple[str, int], list[int]] = defaultdict(list)
        self._number = 0

    async def ws_connect(self, url: str, **settings: object) -> GuildSocket:
        """See `Discord.ws_connect`."""
        await super().ws_connect(url, **settings)
        return GuildSocket(self)

    def identify(self, socket: Socket, data: dict[str, Any]) -> None:
        """Op 2, when it arrives. Sessions of other counts, and of other groups, are not affected."""
        if not socket.open:
            return
        now = asyncio.get_running_loop().time()
        token, (number, count) = data["token"], data["shard"]
        app = sorted(self._apps)[data["large_threshold"] - THRESHOLD_MIN]
        bucket = (token, number % self._concurrency)
        last = self._last_identify.get(bucket)
        if last is not None and now - last < IDENTIFY_EVERY_S:
            self._journal.violate(f"IDENTIFY of {app}/{number} only {now - last:.3f} s after the bucket's last")
        self._last_identify[bucket] = now
        self.identifies += 1
        guilds = frozenset(guild for guild in self.guilds if (guild >> 22) % count == number)
        session = GuildSession(
            f"{app}-{number}-{self.identifies}",
            (app, number),
            count=count,
            guilds=guilds,
            began=self._number,
            began_at=now,
        )
        self.sessions.append(session)
        # Faults choose among these: each session that lives.
        self.current[session.id, number] = session
        session.socket, socket.session = socket, session
        self._journal.note(f"discord: IDENTIFY {app}/{number} of {count} -> {session.id}")
        user = self._user(token)
        listed = [{"id": str(guild), "unavailable": True} for guild in sorted(guilds)]
        ready = {"v": 10, "user": {"id": user.id, "username": user.name}, "guilds": listed}
        session.dispatch("READY", {**ready, "session_id": session.id, "resume_gateway_url": URL})
        for guild in sorted(guilds):
            session.dispatch("GUILD_CREATE", {"id": str(guild), "unavailable": False})

    async def traffic(self) -> None:
        """Dispatch events in random guilds, until `quiet`."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._rng.uniform(0.02, 0.1))
            if self.quiet:
                continue
            app, guild = self._rng.choice(sorted(self._apps)), self._rng.choice(self.guilds)
            self._number += 1
            data = {"id": str(self._number), "channel_id": "1", "guild_id": str(guild)}
            receivers = [one for one in self.sessions if self._receives(one, app, guild)]
            if receivers:
                self.owed[app, guild].append(self._number)
            for session in receivers:
                assert isinstance(session, GuildSession)
                session.free_at = max(session.free_at + TICK_S, loop.time() + self._rng.uniform(0, SPREAD_S))
                loop.call_at(session.free_at, session.dispatch, "MESSAGE_CREATE", data)

    def _receives(self, session: Session, app: str, guild: int) -> bool:
        ours = isinstance(session, GuildSession) and session.shard[0] == app and guild in session.guilds
        return ours and not session.dead


class GuildStream(Stream):
    """A stream whose chains may leave out what another group has published, while they have a hold."""

    def _check(self, chain: str, found: _Chain, headers: FrameHeaders) -> None:
        if headers.kind == "gap":
            found.gaps[headers.session] = headers.last_seq
            return
        if len(found.frames) > 0 and found.frames[-1].headers.kind == "end" and headers.kind != "end":
            self._journal.violate(f"{chain}: a frame follows its end frame")
        last = found.sessions.get(headers.session)
        if last == 0 and found.gaps.get(headers.session) == 0:
            # The gap names a READY that was not stored, and a fence frame repeats the checkpoint before it.
            last = 1
        if not headers.kind and headers.hold is None and last is not None and headers.first_seq != last + 1:
            self._journal.violate(
                f"{chain}: session {headers.session} has {last} and got {headers.first_seq} to {headers.last_seq}"
            )
        found.sessions[headers.session] = headers.last_seq


class Scaling(Simulation):
    """A simulation in which the shard count changes as well."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        rng, journal = self._rng, self._journal
        self._tokens = {app: app for app in self._apps}
        discord = self._guilds = GuildDiscord(
            journal, rng, apps=self._apps, concurrency=4, tokens=self._tokens, total=100_000
        )
        self._discord = discord
        self._stream = GuildStream(journal, discord)
        self._fault_s = FAULTS_S

    async def inject_faults(self) -> None:
        """All random faults, and changes of the shard count."""
        scaling = asyncio.create_task(self._scale_now_and_then())
        await super().inject_faults()
        scaling.cancel()

    async def _scale_now_and_then(self) -> None:
        await asyncio.sleep(self._rng.uniform(20, 40))
        while True:
            app = self._rng.choice(sorted(self._apps))
            count = self._rng.choice([n for n in range(1, SHARDS_MAX + 1) if n != self._apps[app]])
            await self.scale(app, count)
            await asyncio.sleep(self._rng.expovariate(1 / SCALE_EVERY_S))

    async def scale(self, app: str, count: int) -> None:
        """Change the application's shard count."""
        self._faults["shard count changed"] += 1
        self._journal.note(f"{app}: from {self._apps[app]} to {count} shards")
        self._apps[app] = count
        found = self._database.database.items[KEYS.app(app)]
        record = msgspec.json.decode(found.value, type=AppRecord)
        changed = msgspec.structs.replace(record, shards=ShardsSpec(count=count))
        await self._database.txn([], [Put(KEYS.app(app), changed.encode())])

    def _groups(self) -> list[GroupRecord]:
        items = self._database.database.items
        return [
            msgspec.json.decode(item.value, type=GroupRecord)
            for key, item in sorted(items.items())
            if key.startswith(KEYS.groups)
        ]

    def _not_live(self) -> list[str]:
        groups = self._groups()
        running = [key for node in self._nodes for key in node.shards()]
        wrong = []
        for app, count in self._apps.items():
            ours = [group for group in groups if group.app == app]
            if [(group.count, group.phase) for group in ours] != [(count, "active")]:
                wrong.append(f"{app} has {[(group.group, group.count, group.phase) for group in ours]}, not {count}")
                continue
            for number in parse_ranges(ours[0].ids):
                times = running.count(ShardId(app, ours[0].group, number))
                if times != 1:
                    wrong.append(f"shard {app}/{number} runs {times} times")
        return wrong + self._claims_not_live()

    def _check_streams(self) -> None:
        """Each guild's events are in the stream once and in order; those that are missing are inside of a gap."""
        published: dict[tuple[str, int], list[int]] = defaultdict(list)
        places: dict[tuple[str, int], list[str]] = defaultdict(list)
        gaps: dict[tuple[str, int], list[range]] = defaultdict(list)
        named = {session_hash(session.id): session for session in self._discord.sessions}
        stored = {frame.headers.session for frame in self._stream.frames}
        for frame in self._stream.frames:
            _, app, _, _, group, number = frame.subject.split(".")
            session = named.get(frame.headers.session)
            if frame.headers.kind == "gap" and isinstance(session, GuildSession):
                for guild in session.guilds:
                    gaps[app, guild].append(self._inside(session, frame.headers.last_seq, stored))
            if frame.headers.kind:
                continue
            for line in split_events(inflate(frame.payload)):
                event = msgspec.json.decode(line)
                if event["t"] == "MESSAGE_CREATE":
                    published[app, int(event["d"]["guild_id"])].append(int(event["d"]["id"]))
                    places[app, int(event["d"]["guild_id"])].append(f"{group}/{number} at {frame.stream_seq}")
        for key, numbers in self._guilds.owed.items():
            got = published[key]
            if len(set(got)) != len(got):
                twice = sorted({number for number in got if got.count(number) > 1})
                self._journal.violate(f"{key}: published twice: {twice[:9]}")
            else:
                self._check_order(key, got, places[key], gaps[key])
            missing = sorted(set(numbers) - set(got))
            unnamed = [number for number in missing if not any(number in gap for gap in gaps[key])]
            if unnamed:
                self._journal.violate(f"{key}: lost outside of the gaps: {unnamed[:9]} of {len(unnamed)}")
            self._faults["events lost in gaps"] += len(missing) - len(unnamed)

    def _check_order(self, key: tuple[str, int], got: list[int], places: list[str], gaps: list[range]) -> None:
        """An event behind a later one is one that the old group lost, and the new group publishes late."""
        latest = 0
        for number, place in zip(got, places, strict=True):
            if number < latest and not any(number in gap for gap in gaps):
                self._journal.violate(f"{key}: {number} behind {latest}, in {place}")
                return
            latest = max(latest, number)

    @staticmethod
    def _is_unstored(session: GuildSession, stored: set[str]) -> bool:
        """Whether it is over, before anything of it was stored."""
        lasted_s = session.left_at - session.began_at
        return session.socket is None and lasted_s <= UNSTORED_S and session_hash(session.id) not in stored

    def _inside(self, lost: GuildSession, last_seq: int, stored: set[str]) -> range:
        """The numbers of the events behind `last_seq` of a session, up to the begin of its shard's next session.

        A next session that is over, and of which no frame was stored, is a part of the same gap if it was short: its
        node died before its READY was stored.
        """
        ended = max((number for seq, number in lost.numbers if seq <= last_seq), default=lost.began)
        later = self._discord.sessions[self._discord.sessions.index(lost) + 1 :]
        of_shard = (one for one in later if isinstance(one, GuildSession) and one.shard == lost.shard)
        of_chain = (one for one in of_shard if one.count == lost.count and not self._is_unstored(one, stored))
        began = next((one.began for one in of_chain), sys.maxsize)
        return range(ended + 1, began + 1)
