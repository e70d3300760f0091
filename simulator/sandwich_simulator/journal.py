"""The records for later checks: the journal of all dispatches, and the ledger of what clients did.

The journal only grows, by some 52 bytes per entry (columns, names interned), so millions of entries fit. The ledger
keeps exact counts and the latest `RECORDS_MAX` records.
"""

import hashlib
from array import array
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from .delays import Dispatch

RECORDS_MAX = 100_000
_encode = msgspec.json.encode


@dataclass(frozen=True, slots=True)
class SessionName:
    """The session of a dispatch."""

    bot: str
    shard: int
    count: int
    session: str


def digest_of(payload: bytes) -> bytes:
    """An eight-byte digest of a dispatch's exact JSON."""
    return hashlib.blake2b(payload, digest_size=8).digest()


class Journal:
    """Each dispatch of each session, in the order of emission."""

    def __init__(self, path: Path | None = None) -> None:
        self._names: list[SessionName] = []
        self._types: dict[str, int] = {}
        self._type_names: list[str] = []
        self._session = array("L")
        self._type = array("H")
        self._seq = array("L")
        self._ns = array("Q")
        self._event = array("Q")
        self._guild = array("Q")
        self._sessions = array("H")
        self._digest = bytearray()
        self._file: BinaryIO | None = path.open("ab") if path else None

    def __len__(self) -> int:
        return len(self._seq)

    def open_session(self, name: SessionName) -> int:
        """The number under which a session's dispatches are recorded."""
        self._names.append(name)
        return len(self._names) - 1

    def record(self, session: int, seq: int, dispatch: Dispatch, ns: int, payload: bytes) -> None:
        """Adds one dispatch with its wall time and the digest of its exact JSON."""
        number = self._types.get(dispatch.name)
        if number is None:
            number = self._types[dispatch.name] = len(self._type_names)
            self._type_names.append(dispatch.name)
        self._session.append(session)
        self._type.append(number)
        self._seq.append(seq)
        self._ns.append(ns)
        self._event.append(dispatch.event)
        self._guild.append(dispatch.guild)
        self._sessions.append(dispatch.sessions)
        self._digest += digest_of(payload)
        if self._file is not None:
            self._file.write(_encode(self.entry(len(self._seq) - 1)) + b"\n")

    def entry(self, index: int) -> dict[str, Any]:
        """One entry in the control API's format."""
        name = self._names[self._session[index]]
        return {
            "bot": name.bot,
            "shard": name.shard,
            "count": name.count,
            "session": name.session,
            "seq": self._seq[index],
            "t": self._type_names[self._type[index]],
            "ns": self._ns[index],
            "event": self._event[index],
            "guild": str(self._guild[index]) if self._guild[index] else "",
            "sessions": self._sessions[index],
            "digest": self._digest[index * 8 : index * 8 + 8].hex(),
        }

    def entries(self, *, bot: str | None = None, since: int = 0, until: int | None = None) -> Iterator[dict[str, Any]]:
        """Entries from number `since` (inclusive) to `until` (exclusive), of one bot or all."""
        wanted = {i for i, name in enumerate(self._names) if bot is None or name.bot == bot}
        for index in range(since, len(self) if until is None else min(until, len(self))):
            if self._session[index] in wanted:
                yield self.entry(index)

    def close(self) -> None:
        """Flushes and closes the file, if there is one."""
        if self._file is not None:
            self._file.close()
            self._file = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record about a client: `kind` is identify, resume, violation, close or presence."""

    ns: int
    kind: str
    bot: str
    shard: int
    count: int
    outcome: str
    session: str = ""
    detail: str = ""


class Ledger:
    """Identifies, resumes and violations, with counts by (kind, bot, outcome)."""

    def __init__(self) -> None:
        self.records: deque[Record] = deque(maxlen=RECORDS_MAX)
        self.counts: Counter[tuple[str, str, str]] = Counter()

    def add(self, record: Record) -> None:
        """Adds one record."""
        self.records.append(record)
        self.counts[record.kind, record.bot, record.outcome] += 1

    def count(self, kind: str, *, bot: str | None = None, outcome: str | None = None) -> int:
        """The number of records of a kind, for one bot or all, with one outcome or any."""
        return sum(
            number
            for (a_kind, a_bot, an_outcome), number in self.counts.items()
            if a_kind == kind and bot in (None, a_bot) and outcome in (None, an_outcome)
        )

    def outcomes(self, kind: str, bot: str) -> dict[str, int]:
        """The number of records by outcome, for one kind and bot."""
        return {out: n for (a_kind, a_bot, out), n in self.counts.items() if a_kind == kind and a_bot == bot}

    def as_json(self, *, bot: str | None = None, kind: str | None = None) -> list[dict[str, Any]]:
        """The kept records, oldest first."""
        return [asdict(r) for r in self.records if bot in (None, r.bot) and kind in (None, r.kind)]
