"""The event log that all nodes share. It checks each append."""

import asyncio
import bisect
import contextlib
import random
from contextvars import Context
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from sandwich_node.publishing.awaited_answers import AwaitedAnswers
from sandwich_node.publishing.log import (
    Append,
    Extent,
    LogUnavailable,
    OnAnswer,
    Page,
    StoredFrame,
    StreamLimits,
    Tail,
    WrongLast,
)
from sandwich_sdk.wire.headers import FrameHeaders
from verification.simulation.checks import Journal
from verification.simulation.discord import Discord

ANSWER_LOST = 0.002
LANDS_LATE = 0.0005
PAGE = 64


@dataclass(slots=True)
class _Chain:
    frames: list[Tail] = field(default_factory=list)
    sessions: dict[str, int] = field(default_factory=dict)
    gaps: dict[str, int] = field(default_factory=dict)

    @property
    def tail(self) -> Tail | None:
        """The last frame."""
        return self.frames[-1] if self.frames else None


class Stream:
    """JetStream as a chain uses it: compare-and-append on each chain, in one order."""

    def __init__(self, journal: Journal, discord: Discord) -> None:
        self.chains: dict[str, _Chain] = {}
        self.frames: list[StoredFrame] = []
        self._journal = journal
        self._discord = discord
        self._seq = 0

    @property
    def extent(self) -> Extent:
        """What the stream has: everything."""
        return Extent(1, self._seq)

    def read(self, subjects: str, seq: int) -> Page:
        """See `Log.read`."""
        start = bisect.bisect_left(self.frames, seq, key=lambda frame: frame.stream_seq)
        found = [frame for frame in self.frames[start : start + PAGE] if fnmatchcase(frame.subject, subjects)]
        seen = self.frames[start : start + PAGE]
        return Page(tuple(found), seen[-1].stream_seq + 1 if seen else seq)

    def append(self, append: Append, headers: FrameHeaders) -> int:
        """Raises WrongLast."""
        chain = append.chain
        found = self.chains.setdefault(chain, _Chain())
        tail = found.tail
        if (tail.stream_seq if tail else 0) != append.expected:
            raise WrongLast(f"expected {append.expected}")
        self._seq += 1
        if tail is not None and headers.epoch < tail.headers.epoch:
            self._journal.violate(f"{chain}: fence {headers.epoch} wrote after {tail.headers.epoch}")
        self._check(chain, found, headers)
        found.frames.append(Tail(self._seq, headers, None))
        self.frames.append(StoredFrame(self._seq, append.subject, headers, append.payload))
        return self._seq

    def gap_of(self, app: str, number: int, session: str) -> int | None:
        """The last sequence before the gap that the stream names for a session; None without a gap."""
        for chain, found in self.chains.items():
            parts = chain.split(".")
            if (parts[1], parts[-1]) == (app, str(number)) and session in found.gaps:
                return found.gaps[session]
        return None

    def _check(self, chain: str, found: _Chain, headers: FrameHeaders) -> None:
        if headers.kind == "gap":
            found.gaps[headers.session] = headers.last_seq
        if headers.kind or not headers.count:
            return
        # A gap at 0 names a READY that was not stored.
        last = found.sessions.get(headers.session, 1 if found.gaps.get(headers.session) == 0 else 0)
        if headers.first_seq != last + 1 or headers.last_seq - headers.first_seq + 1 != headers.count:
            self._journal.violate(
                f"{chain}: session {headers.session} has {last} and got {headers.first_seq} to {headers.last_seq}"
            )
        found.sessions[headers.session] = headers.last_seq
        _, app, _, _, _, number = chain.split(".")
        self._discord.stored[(app, int(number)), headers.session] = headers.last_seq


@dataclass(slots=True)
class Conditions:
    """What is out of order now, for all machines or for one."""

    store_away: bool = False
    store_answers_lost: float = 0.0
    log_away: bool = False


class NodeLog:
    """One worker's connection to the stream: slow, cut off, or with lost answers. Implements `Log`."""

    part_bytes = 1_000_000

    def __init__(self, stream: Stream, rng: random.Random, conditions: tuple[Conditions, ...]) -> None:
        self._stream = stream
        self._rng = rng
        self._conditions = conditions
        self._awaited = AwaitedAnswers()

    def limit_stream(self, app: str, limits: StreamLimits) -> None:
        """See `Log.limit_stream`: nothing is limited here."""

    async def ensure_stream(self, app: str) -> None:
        """The stream always exists."""
        await self._travel()

    async def append(self, append: Append) -> int:
        """See `Log.append`."""
        await self._travel()
        headers = FrameHeaders.decode(append.headers)
        if self._rng.random() < LANDS_LATE:
            # The writer stops waiting; the append reaches the stream later, perhaps after another owner took over.
            self._land_later(append, headers)
            raise LogUnavailable("no answer in time")
        seq = self._stream.append(append, headers)
        await self._travel()
        if self._rng.random() < ANSWER_LOST:
            raise LogUnavailable("the answer was lost")
        return seq

    def _land_later(self, append: Append, headers: FrameHeaders) -> None:
        def land() -> None:
            with contextlib.suppress(WrongLast):
                self._stream.append(append, headers)

        # Outside of the machine's context: a packet under way is not frozen with its sender.
        loop = asyncio.get_running_loop()
        loop.call_later(self._rng.uniform(0.001, 9.0), land, context=Context())

    def begin(self, append: Append, on_answer: OnAnswer) -> None:
        """See `Log.begin`."""
        self._awaited.give(self.append(append), on_answer)

    async def tail(self, stream: str, chain: str) -> Tail | None:
        """See `Log.tail`."""
        await self._travel()
        found = self._stream.chains.get(chain)
        tail = found.tail if found else None
        await self._travel()
        return tail

    async def following(self, stream: str, chain: str, seq: int) -> Tail | None:
        """See `Log.following`."""
        await self._travel()
        found = self._stream.chains.get(chain)
        first = next((frame for frame in found.frames if frame.stream_seq >= seq), None) if found else None
        await self._travel()
        return first

    async def extent(self, stream: str) -> Extent:
        """See `Log.extent`."""
        await self._travel()
        extent = self._stream.extent
        await self._travel()
        return extent

    async def read(self, stream: str, subjects: str, seq: int) -> Page:
        """See `Log.read`."""
        await self._travel()
        page = self._stream.read(subjects, seq)
        await self._travel()
        return page

    async def _travel(self) -> None:
        await asyncio.sleep(self._rng.uniform(0.0005, 0.004))
        if any(each.log_away for each in self._conditions) and self._rng.random() < 0.9:
            await asyncio.sleep(0.5)
            raise LogUnavailable("no answer")
