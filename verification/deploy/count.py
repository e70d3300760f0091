"""The count, event by event: what both streams and the consumer groups have, against what Discord sent."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import nats

from sandwich_node.dev.checker import DeliveryCheck, Verdict
from sandwich_node.dev.simulated_discord import SimulatedDiscord
from sandwich_sdk import Consumer, Gap
from sandwich_sdk.wire.subjects import stream_name

READ_IDLE_S, QUIET_S = 20.0, 3.0
"""How long the end of a stream is waited for: while events are missing, and when all have been read."""
JUDGE = "judge"


@dataclass(frozen=True, slots=True)
class Tally:
    """Totals over both bots since the start, or of one step as a difference of two.

    owed                 events that Discord sent
    lost ... disordered  of them, in the streams
    missed, again        of them, not received and received twice by the consumer groups (at least once is promised)
    identifies           session starts of shards; `refills`: those beside a live session, to fill the cache again
    """

    owed: int = 0
    lost: int = 0
    doubled: int = 0
    disordered: int = 0
    missed: int = 0
    again: int = 0
    gaps: int = 0
    identifies: int = 0
    refills: int = 0

    def __sub__(self, before: "Tally") -> "Tally":
        return Tally(*(getattr(self, name) - getattr(before, name) for name in self.__slots__))

    def wrong(self, first_identifies: int) -> list[str]:
        """What is not as promised, where shards begin `first_identifies` sessions in all."""
        found = [name for name in ("lost", "doubled", "disordered", "missed", "gaps") if getattr(self, name)]
        if not self.owed:
            found.append("no event was owed")
        if self.identifies != first_identifies:
            found.append(f"{self.identifies} IDENTIFYs in place of {first_identifies}")
        return found


@dataclass(slots=True)
class Count:
    """Reads both streams from where it stopped, and compares. Traffic has to pause meanwhile."""

    discord: SimulatedDiscord
    servers: Sequence[str]
    login: Mapping[str, Any]
    apps: Sequence[str]
    groups: Mapping[str, DeliveryCheck]
    """What each bot's consumer group received."""
    _streams: dict[str, DeliveryCheck] = field(default_factory=dict)
    _gaps: int = 0
    _from: datetime | None = None

    async def tally(self) -> Tally:
        """The totals now. Raises aiohttp.ClientError, nats.errors.Error, ConsumerError."""
        missing = -sum(check.events for check in self._streams.values())
        for app in self.apps:
            missing += sum(map(len, (await self.discord.owed(app, ())).values()))
        await self._read(missing)
        verdicts: list[Verdict] = []
        groups: list[Verdict] = []
        begun = spare = 0
        for app in self.apps:
            check = self._streams.setdefault(app, DeliveryCheck())
            owed = await self.discord.owed(app, check.sessions)
            verdicts.append(check.verdict(owed))
            groups.append(self.groups[app].verdict(owed))
            for row in await self.discord.control(f"ledger?bot={app}&kind=identify"):
                begun += row["outcome"] == "ok"
                spare += row["outcome"] == "ok" and row["detail"].endswith((" beside", " resumable"))
        return Tally(
            owed=sum(verdict.owed for verdict in verdicts),
            lost=sum(verdict.lost for verdict in verdicts),
            doubled=sum(verdict.doubled for verdict in verdicts),
            disordered=sum(verdict.out_of_order for verdict in verdicts),
            missed=sum(verdict.lost for verdict in groups),
            again=sum(verdict.doubled for verdict in groups),
            gaps=self._gaps,
            identifies=begun - spare,
            refills=spare,
        )

    async def _read(self, missing: int) -> None:
        """Read what came since the last time: some `missing` events."""
        start = self._from or "all"
        options: dict[str, Any] = {"group": JUDGE, "start": start, "connection": self.login}
        async with Consumer(list(self.servers), apps=list(self.apps), **options) as consumer:

            @consumer.on_gap
            async def keep(gap: Gap) -> None:
                del gap
                self._gaps += 1

            events = aiter(consumer)
            try:
                while True:
                    async with asyncio.timeout(READ_IDLE_S if missing > 0 else QUIET_S):
                        event = await anext(events)
                    self._streams.setdefault(event.app, DeliveryCheck()).take(event.id)
                    missing -= 1
            except TimeoutError:
                # Nothing was stored in the time that was waited for the end.
                self._from = datetime.fromtimestamp(time.time() - QUIET_S / 2, UTC)
        # A group without workers would be reported as one that falls behind.
        client = await nats.connect(list(self.servers), **self.login)
        try:
            for app in self.apps:
                await client.jetstream().delete_consumer(stream_name(app), JUDGE)
        finally:
            await client.close()
