"""Counts what a consumer received, shard by shard, and holds it against what Discord owed. Pure."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sandwich_sdk.wire.frame import session_hash


@dataclass(slots=True)
class SessionCount:
    """What arrived of one session: how many events, and what was wrong with their order."""

    received: int = 0
    last_seq: int = 0
    doubled: int = 0
    out_of_order: int = 0
    missing: set[int] = field(default_factory=set)

    def take(self, seq: int) -> None:
        """One event arrived."""
        if seq == self.last_seq + 1:
            self.received += 1
        elif seq > self.last_seq:
            self.missing.update(range(self.last_seq + 1, seq))
            self.received += 1
        elif seq in self.missing:
            self.missing.discard(seq)
            self.received += 1
            self.out_of_order += 1
            return
        else:
            self.doubled += 1
            return
        self.last_seq = seq


@dataclass(frozen=True, slots=True)
class Verdict:
    """The comparison for one application."""

    owed: int
    received: int
    lost: int
    doubled: int
    out_of_order: int

    @property
    def clean(self) -> bool:
        """Everything owed arrived, once, in order, and there was something to deliver."""
        return self.owed > 0 and not (self.lost or self.doubled or self.out_of_order)


class DeliveryCheck:
    """Feed it every event an application's consumer got."""

    def __init__(self) -> None:
        self.sessions: dict[str, SessionCount] = {}
        self.events = 0

    def take(self, event_id: str) -> None:
        """`event_id` is the wire's `<session hash>:<seq>`."""
        session, _, seq = event_id.partition(":")
        count = self.sessions.get(session)
        if count is None:
            count = self.sessions[session] = SessionCount()
        count.take(int(seq))
        self.events += 1

    def verdict(self, owed: Mapping[str, Iterable[int]]) -> Verdict:
        """`owed`: session hash -> the sequences that were dispatched in it."""
        total = lost = 0
        for session, sequences in owed.items():
            count = self.sessions.get(session, SessionCount())
            for seq in sequences:
                total += 1
                if seq > count.last_seq or seq in count.missing:
                    lost += 1
        return Verdict(
            owed=total,
            received=sum(count.received for count in self.sessions.values()),
            lost=lost,
            doubled=sum(count.doubled for count in self.sessions.values()),
            out_of_order=sum(count.out_of_order for count in self.sessions.values()),
        )


def spare_sessions(identifies: Iterable[Mapping[str, Any]], streamed: Container[str]) -> set[str]:
    """Hashes of the sessions that were begun beside one that streams, only to resync the cache.

    `identifies`: the simulator's ledger; `streamed`: the hashes of sessions of which something was published. A node
    that identifies a shard without need publishes from that session: it is none of these.
    """
    begun = (r for r in identifies if r["outcome"] == "ok" and r["detail"].endswith((" beside", " resumable")))
    return {name for r in begun if (name := session_hash(r["session"])) not in streamed}
