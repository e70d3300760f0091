"""Which session a new owner resumes, from where, and how much Discord replays. Pure.

etcd keeps the session (one write at READY), the stream keeps the sequence (the chain's last frame). Both must be of the
same session: a record older than the chain must never be resumed, since Discord would replay what is stored. The agent
deletes a lost session's record before the next IDENTIFY is granted. So a record of a session that the chain does not
know is always newer than the chain.
"""

from dataclasses import dataclass

from sandwich_coordinator.types import SessionRecord
from sandwich_node.gateway.session import Session
from sandwich_node.publishing.chain import Checkpoint
from sandwich_sdk.wire.frame import session_hash


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """RESUME `session_id` at `seq` on `url`; when `session_id` is "", IDENTIFY, because of `reason`."""

    session_id: str
    url: str
    seq: int
    reason: str = ""


def resume_point(
    record: SessionRecord | None, checkpoint: Checkpoint, *, intents: int, count: int, token_hash: str
) -> ResumePoint:
    """Decide between RESUME and IDENTIFY (Discord: Gateway, Resuming)."""
    if record is None:
        return ResumePoint("", "", 0, "no session is kept")
    if record.token_hash != token_hash:
        return ResumePoint("", "", 0, "the token changed")
    if record.intents != intents:
        return ResumePoint("", "", 0, "the intents changed")
    if record.count != count:
        return ResumePoint("", "", 0, "the shard count changed")
    stored = checkpoint.session == session_hash(record.session_id)
    return ResumePoint(record.session_id, record.resume_url, checkpoint.last_seq if stored else record.first_seq)


@dataclass(frozen=True, slots=True)
class LostEvents:
    """Events of a session after `last_seq` that are not in the stream and will not come again."""

    session: str
    last_seq: int
    reason: str


def first_session(
    record: SessionRecord | None, checkpoint: Checkpoint, *, intents: int, count: int, token_hash: str
) -> tuple[Session | None, tuple[LostEvents, ...]]:
    """The session that a new owner resumes, None to IDENTIFY, and what consumers have to know of lost events."""
    point = resume_point(record, checkpoint, intents=intents, count=count, token_hash=token_hash)
    if not point.session_id:
        ended = LostEvents(checkpoint.session, checkpoint.last_seq, point.reason)
        return None, (ended,) if checkpoint.session else ()
    session = Session(id=point.session_id, sequence=point.seq, resume_url=point.url)
    name = session_hash(point.session_id)
    if checkpoint.session == name:
        return session, ()
    # The last owner ended after READY and before the stream had it: etcd knows the session, the stream does not.
    lost = LostEvents(name, point.seq - 1, "the session's READY was not stored")
    if not checkpoint.session:
        return session, (lost,)
    return session, (
        LostEvents(checkpoint.session, checkpoint.last_seq, "the session ended and its end was not stored"),
        lost,
    )


def replay_events(guilds: int) -> int:
    """How many events Discord replays at least (docs/design/protocol.md, section 7: a formula of 2016)."""
    return max(100, min(3500, guilds * 75))
