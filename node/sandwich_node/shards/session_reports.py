"""What a shard reports to its agent: its state, its sessions, and events that are lost."""

import logging
from collections.abc import Callable

import msgspec

from sandwich_coordinator.types import SessionRecord
from sandwich_node import ipc
from sandwich_node.events.guild_arrivals import ShardGuilds
from sandwich_node.gateway import effects as fx
from sandwich_node.gateway.effects import State
from sandwich_node.publishing.chain import Checkpoint
from sandwich_node.publishing.publisher import ShardPublisher
from sandwich_node.shards.intake import ShardIntake
from sandwich_node.shards.resume import LostEvents
from sandwich_node.shards.services import WorkerServices
from sandwich_sdk.wire.frame import session_hash

_log = logging.getLogger(__name__)

GUILDS_EVERY_S = 600.0
"""A shard writes its guild count at most so often, beside its sessions' begin and end."""
GUILDS_DRIFT = 0.03
"""It does so when the count differs from the recorded one by more than this part: automatic shard counts follow it."""

STATE_NAMES = {
    State.NEW: "connecting",
    State.CONNECTING: "connecting",
    State.GREETING: "connecting",
    State.WAITING: "connecting",
    State.QUEUED: "identifying",
    State.IDENTIFYING: "identifying",
    State.RESUMING: "resuming",
    State.LIVE: "live",
}
"""How the agent names the machine's states; it is not sent the others."""


class SessionReports:
    """Translates the machine's reports into messages to the agent. `latency_ms` and `replayed` are for the figures.

    `withheld`: takes lost events while the shard's output is withheld, and reports itself when the shard is live.
    """

    def __init__(
        self,
        start: ipc.StartShard,
        services: WorkerServices,
        intake: ShardIntake,
        publisher: ShardPublisher,
    ) -> None:
        self._key = start.key
        self._start = start
        self._send = services.send
        self._failures = services.failures
        self._intake = intake
        self._publisher = publisher
        self._record = start.session
        self._stored_at: float | None = None
        self.withheld: Callable[[LostEvents], None] | None = None
        self.latency_ms: float | None = None
        self.replayed = 0
        self._clock = services.clock
        self._wall = services.wall
        self._guilds_saved_at = self._clock()

    def taken_over(self, checkpoint: Checkpoint) -> None:
        """The chain is ours. The agent gets to know how long the shard was away, with the first session."""
        self._stored_at = checkpoint.stored_at

    def lost(self, events: LostEvents) -> None:
        """Report events that will not come again."""
        if self.withheld is not None:
            self.withheld(events)
        else:
            self.publish_loss(events)

    def publish_loss(self, events: LostEvents) -> None:
        """Put a gap frame into the chain, behind what was read, and report it."""
        note = {
            "session": events.session,
            "last_seq": events.last_seq,
            "at": self._wall(),
            "reason": events.reason,
        }
        self._publisher.gap(session=events.session, last_seq=events.last_seq, note=msgspec.json.encode(note))
        self._send(
            ipc.EventsLost(key=self._key, session=events.session, last_seq=events.last_seq, reason=events.reason)
        )

    def observe(self, report: fx.Report) -> None:
        """Pass on what the machine reports."""
        match report:
            case fx.StateChanged(State.LIVE) if self.withheld is not None:
                pass
            case fx.StateChanged(state, reason) if state in STATE_NAMES:
                self._send(ipc.ShardChanged(self._key, STATE_NAMES[state], reason))
                if state is State.WAITING:
                    self._log_failure(logging.INFO, f"connects again: {reason}")
            case fx.SessionStarted():
                self._session_started(report)
            case fx.SessionLost(session, reason):
                _log.warning("shard %s lost its session: %s", self._key, reason)
                self.lost(LostEvents(session_hash(session.id), session.sequence, reason))
                self._send(ipc.SessionDropped(self._key, reason))
            case fx.Resumed(replayed):
                self.replayed += replayed
                _log.info("shard %s resumed, %d events replayed", self._key, replayed)
                self._report_back("resumed", replayed)
            case fx.RequestIdentify():
                self._send(ipc.IdentifyWanted(self._key))
            case fx.IdentifyWithdrawn():
                self._send(ipc.IdentifyWithdrawn(self._key))
            case fx.IdentifySent():
                self._send(ipc.IdentifySent(self._key))
            case fx.GatewayUnreachable(url, why):
                self._log_failure(logging.WARNING, f"cannot reach the gateway at {url}: {why}")
                self._send(ipc.GatewayUnreachable(self._key, url, why))
            case fx.LatencyMeasured(seconds):
                self.latency_ms = round(seconds * 1000, 1)
                self._save_drifted_guilds()
            case fx.Malformed(sequence, reason):
                self._intake.unreadable.pass_over(sequence, reason)
            case fx.CommandRefused(op, reason):
                _log.warning("shard %s: command %d was not sent: %s", self._key, op, reason)

    def _log_failure(self, level: int, text: str) -> None:
        line = self._failures.note(level, f"shard {self._key} {text}", self._clock())
        if line is not None:
            _log.log(level, "%s", line)

    def _session_started(self, started: fx.SessionStarted) -> None:
        intake = self._intake
        intake.bot = started.user_id or intake.bot
        guilds = ShardGuilds(len(started.guild_ids), announced=frozenset(started.guild_ids))
        intake.begin_guilds(guilds)
        self._record = SessionRecord(
            session_id=started.session_id,
            resume_url=started.resume_url,
            intents=self._start.intents,
            count=self._start.count,
            first_seq=started.first_seq,
            token_hash=self._start.token_hash,
            guilds=guilds.count,
        )
        self._guilds_saved_at = self._clock()
        self._send(ipc.SessionSaved(self._key, self._record, intake.bot, started.user_name))
        self._report_back("identified", 0)

    def _report_back(self, how: str, replayed: int) -> None:
        stored_at, self._stored_at = self._stored_at, None
        self._send(ipc.ShardBack(key=self._key, how=how, replayed=replayed, stored_at=stored_at))

    def save_guilds(self) -> None:
        """Report how many guilds the shard is in, for its next owner and for automatic shard counts."""
        record, guilds = self._record, self._intake.guilds.count
        if record is not None and record.session_id == self._intake.session_id and record.guilds != guilds:
            self._record = msgspec.structs.replace(record, guilds=guilds)
            self._guilds_saved_at = self._clock()
            self._send(ipc.SessionSaved(self._key, self._record, self._intake.bot, ""))

    def _save_drifted_guilds(self) -> None:
        """At a heartbeat's answer: report the guild count when it has changed enough, and not too often."""
        recorded = self._record.guilds if self._record is not None else 0
        drifted = abs(self._intake.guilds.count - recorded) > GUILDS_DRIFT * recorded
        if drifted and self._clock() - self._guilds_saved_at >= GUILDS_EVERY_S:
            self.save_guilds()
