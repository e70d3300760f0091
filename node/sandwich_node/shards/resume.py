"""Which session a new owner resumes, from where, and how much comes again. Pure.

etcd keeps the session (one write at READY), the stream keeps the sequence (the chain's last frame). Both must speak of
the same session: a record older than the chain must never be resumed, since Discord would replay what is stored.
The agent deletes a lost session's record before the next IDENTIFY is granted, so that a record which the chain
does not know yet can only be newer than the chain.
"""

from dataclasses import dataclass

from sandwich_coordinator.types import SessionRecord
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


def replay_events(guilds: int) -> int:
    """How many events Discord replays at least (docs/design/protocol.md, section 7: a formula of 2016)."""
    return max(100, min(3500, guilds * 75))
