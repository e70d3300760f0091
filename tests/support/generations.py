"""Writes events of guilds over one shard group after another, by the wire contract."""

import json
import math
import random
from collections import Counter
from collections.abc import Sequence

import zstandard
from nats.aio.client import Client

from sandwich_sdk.wire import subjects
from sandwich_sdk.wire.headers import END, SWITCH, FrameHeaders
from sandwich_sdk.wire.switch import Switch


class Generations:
    """The shards of one application, group after group. Event n of guild g has the data {"guild": g, "n": n}.

    A guild is on shard `guild % count`. `written`: lane, guild and n of all events, in the order of the stream.
    """

    def __init__(self, client: Client, count: int, *, lanes: Sequence[str] = ("all",), app: str = "bot") -> None:
        self.client = client
        self.app = app
        self.group = 0
        self.count = count
        self.lanes = lanes
        self.written: list[tuple[str, int, int]] = []
        self._numbers: Counter[int] = Counter()
        self._seqs: Counter[tuple[int, int]] = Counter()

    def events_of(self, lane: str) -> list[tuple[int, int]]:
        """Guild and n of the events of a lane, or of all (`*`), in the order of the stream."""
        return [(guild, n) for where, guild, n in self.written if lane in (where, "*")]

    async def event(self, guild: int, *, lane: str = "all", parts: int = 1) -> int:
        """An event of the serving group. Returns its stream sequence (with parts: that of the last one)."""
        return await self._event(self.group, self.count, guild, lane, parts)

    async def _event(self, group: int, count: int, guild: int, lane: str, parts: int) -> int:
        shard = guild % count
        self._numbers[guild] += 1
        self._seqs[group, shard] += 1
        n, seq = self._numbers[guild], self._seqs[group, shard]
        meta = {"v": 1, "app": self.app, "bot": "1", "route": "", "shard": [group, shard, count]}
        line = {"t": "A", "s": seq, "op": 0, "d": {"guild": guild, "n": n}}
        line["__sandwich"] = {**meta, "id": f"{group}-{shard}:{seq}"}
        payload = zstandard.ZstdCompressor().compress(json.dumps(line).encode() + b"\n")
        self.written.append((lane, guild, n))
        headers = self._headers(group, shard, count=1, types=frozenset({"A"})).encode()
        size = -(-len(payload) // parts)
        last = 0
        for part in range(parts):
            split = {"Sandwich-Part": f"{part + 1}/{parts}"} if parts > 1 else {}
            last = await self.send(group, shard, headers | split, payload[part * size :][:size], lane=lane)
        return last

    async def end(self, shard: int, *, lanes: Sequence[str] | None = None) -> int:
        """The end frames of one shard of the serving group. Returns the stream sequence of the first."""
        headers = self._headers(self.group, shard, kind=END).encode()
        of_lanes = self.lanes if lanes is None else lanes
        return min([await self.send(self.group, shard, headers, b"", lane=lane) for lane in of_lanes])

    async def begin(self, group: int, shard: int, payload: bytes) -> None:
        """The switch frames of a new shard."""
        headers = self._headers(group, shard, kind=SWITCH).encode()
        for lane in self.lanes:
            await self.send(group, shard, headers, payload, lane=lane)

    def _headers(
        self, group: int, shard: int, *, count: int = 0, kind: str = "", types: frozenset[str] = frozenset()
    ) -> FrameHeaders:
        seq = self._seqs[group, shard]
        return FrameHeaders(
            session=f"{group}-{shard}", first_seq=seq, last_seq=seq, count=count, epoch=1, kind=kind, types=types
        )

    async def send(self, group: int, shard: int, headers: dict[str, str], payload: bytes, *, lane: str) -> int:
        """One message. Returns its stream sequence."""
        subject = subjects.events_subject(self.app, lane, group, shard)
        return (await self.client.jetstream().publish(subject, payload, headers=headers)).seq

    async def switch(self, count: int, *, guilds: Sequence[int] = (), chance: random.Random | None = None) -> None:
        """Go on with a group of `count` shards. With `chance`: in a random order, with events of `guilds` in between.

        A new shard begins when the old shards that can have guilds of it have ended.
        """
        chance = chance or random.Random(0)
        ends: dict[int, int] = {}
        begun = set[int]()
        step = math.gcd(self.count, count)
        while len(begun) < count:
            able = [shard for shard in range(count) if shard not in begun and ends.keys() >= self._before(shard, step)]
            if able and (len(ends) == self.count or chance.random() < 0.5):
                shard = chance.choice(able)
                after = {old: ends[old] for old in self._before(shard, step)}
                await self.begin(self.group + 1, shard, Switch(old_group=self.group, after=after).encode())
                begun.add(shard)
            elif len(ends) < self.count:
                shard = chance.choice([shard for shard in range(self.count) if shard not in ends])
                ends[shard] = await self.end(shard)
            for guild in chance.choices(guilds, k=2) if guilds else ():
                lane, parts = chance.choice(self.lanes), chance.choice([1, 1, 1, 3])
                if guild % self.count not in ends:
                    await self._event(self.group, self.count, guild, lane, parts)
                elif guild % count in begun:
                    await self._event(self.group + 1, count, guild, lane, parts)
        self.group, self.count = self.group + 1, count

    def _before(self, shard: int, step: int) -> set[int]:
        return set(range(shard % step, self.count, step))
