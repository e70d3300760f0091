"""The use counts of one guild's invites: which counts rose, and which joins raised them. Pure.

A *round* begins with a join and ends when an answer of Discord covers every join received. Its attributions are true
because of these rules:

1. Every join raises one count by one, or none. Nothing else raises a count.
2. If a request is sent after a join's event was received, its answer counts that join.
3. The event of a join that precedes an answer arrives at most `SETTLE_S` after the answer. So a round ends when the
   last answer is that old and no member joined since its request. A later join needs a further answer.

Discord promises no order between REST and gateway: a count may rise only after its join was attributed. So after a join
that no count explains, rises are attributed to no join, up to the first answer whose request was sent `LAG_S` later.
"""

import math
from dataclasses import dataclass, field

from sandwich_node.invites.attribution import Attribution, ByInvite, Reason, Unknown
from sandwich_node.invites.wire import VANITY, Invite

NEVER = math.inf
SETTLE_S = 0.1
LAG_S = 2.0
NEAR_S = 0.5
"""The most time between INVITE_DELETE and the GUILD_MEMBER_ADD of an invite's last use, in either order."""
EXPIRY_MARGIN_S = 5.0
"""The tolerated difference between this machine's clock and Discord's."""
JOINS_MAX = 1000
INVITES_MAX = 2000
"""More than a guild can have. Beyond it new ones are not stored, which is safe: their first count is 0."""


@dataclass(slots=True)
class Join:
    """One user who joined. `by`: the number of the first answer that certainly counts it, 0 before its request."""

    user: str
    handles: list[int]
    by: int = 0


@dataclass(slots=True)
class Gone:
    """An invite that is gone. `deleted`: by INVITE_DELETE. `step`: the first answer without it, 0: none yet."""

    invite: Invite
    at: float
    deleted: bool
    step: int = 0


@dataclass(slots=True)
class InviteCounts:
    """The counts of one guild by the last answer, and the round in progress. Times are monotonic seconds.

    It is `blind` until the first round has ended: before that it has no baseline to compare counts with.
    """

    blind: bool = True
    counts: dict[str, Invite] = field(default_factory=dict)
    joins: dict[str, Join] = field(default_factory=dict)
    _steps: list[dict[str, int]] = field(default_factory=list)
    _gone: dict[str, Gone] = field(default_factory=dict)
    _made: set[str] = field(default_factory=set)
    _over: frozenset[str] = frozenset()
    _answered_at: float = NEVER
    _asked_at: float = -NEVER
    _joined_at: float = -NEVER
    refresh_at: float = NEVER
    """From then on another answer is wanted, for counts that rose late; infinity for never."""

    # --- events -------------------------------------------------------------------------------------------------

    def joined(self, user: str, handle: int, now: float, wall_s: float) -> None:
        """A user joined. A repeated event of the same user is one join."""
        self._joined_at = now
        if (known := self.joins.get(user)) is not None:
            known.handles.append(handle)
            return
        if self.blind and self.joins:
            return
        if not self.joins:
            self._open(now, wall_s)
        self.joins[user] = Join(user, [handle])

    def _open(self, now: float, wall_s: float) -> None:
        """Begin a round, without invites that were gone long before it. Discord sends no event for an expiry."""
        self._forget_gone(now)
        latest_s = wall_s - EXPIRY_MARGIN_S
        ends = ((code, invite.expires_at) for code, invite in self.counts.items())
        self._over = frozenset(code for code, end_s in ends if end_s is not None and end_s < latest_s)

    def _forget_gone(self, now: float) -> None:
        self._gone = {code: gone for code, gone in self._gone.items() if gone.at >= now - NEAR_S}

    def made(self, invite: Invite) -> None:
        """INVITE_CREATE. A late one says 0 uses of an invite whose uses are already known."""
        known = invite.code in self.counts or invite.code in self._gone
        if not known and len(self.counts) < INVITES_MAX:
            self.counts[invite.code] = invite
            self._made.add(invite.code)

    def deleted(self, code: str, now: float) -> bool:
        """INVITE_DELETE; whether the invite was known."""
        if not self.joins:
            self._forget_gone(now)
        if (invite := self.counts.pop(code, None)) is not None:
            self._gone[code] = Gone(invite, now, deleted=True)
        elif (gone := self._gone.get(code)) is not None:
            gone.deleted, gone.at = True, now
        else:
            return False
        return True

    def channel_deleted(self, channel: str, now: float) -> bool:
        """CHANNEL_DELETE removes the channel's invites; whether it had any."""
        codes = [code for code, invite in self.counts.items() if invite.channel == channel]
        for code in codes:
            self._gone[code] = Gone(self.counts.pop(code), now, deleted=False)
        return bool(codes)

    # --- requests -----------------------------------------------------------------------------------------------

    @property
    def is_covered(self) -> bool:
        """Whether no further answer is needed."""
        answers = len(self._steps)
        if self.blind:
            return answers > 0 and not self.joins
        return all(0 < join.by <= answers for join in self.joins.values())

    def asked(self, now: float) -> None:
        """A request is sent now. Its answer will count all joins so far, which blind counts can forget."""
        self._made.clear()
        self._asked_at = now
        if self.blind:
            self.joins.clear()
        for join in self.joins.values():
            join.by = join.by or len(self._steps) + 1

    def unanswered(self) -> None:
        """The request failed: it counts no join."""
        if self.blind:
            self._steps.clear()
        for join in self.joins.values():
            join.by = 0 if join.by > len(self._steps) else join.by

    def answered(self, fresh: dict[str, Invite], now: float) -> None:
        """An answer: all invites of the guild, and its vanity URL by the key VANITY."""
        step = len(self._steps) + 1
        rises: dict[str, int] = {}
        for code, invite in fresh.items():
            before = self.counts.get(code) or (self._gone[code].invite if code in self._gone else None)
            rise = self._rise(code, before, invite, now, step)
            if rise and not self.blind:
                rises[code] = rise
        for code in self.counts.keys() - fresh.keys() - self._made - self._over:
            self._gone.setdefault(code, Gone(self.counts[code], now, deleted=False))
        self._renew(fresh, step)
        self._steps.append(rises)
        self._answered_at = now

    def _rise(self, code: str, before: Invite | None, invite: Invite, now: float, step: int) -> int:
        """By how much a count rose. An invite that cannot be compared is only a candidate, as if it were gone."""
        if before is None:
            comparable = code != VANITY
            rise = invite.uses
        else:
            comparable = invite.code == before.code and invite.uses >= before.uses
            rise = invite.uses - before.uses
        if comparable:
            return rise
        if not self.blind:
            self._gone[f"{code}?"] = Gone(Invite(invite.code, 0), now, deleted=False, step=step)
        return 0

    def _renew(self, fresh: dict[str, Invite], step: int) -> None:
        """Take the answer's counts. It may still contain invites whose deletion is known, or lack new ones."""
        for code, gone in list(self._gone.items()):
            if code not in fresh:
                gone.step = gone.step or step
            elif gone.deleted:
                gone.invite = fresh[code]
            else:
                del self._gone[code]
        made = {code: self.counts[code] for code in self._made if code in self.counts and code not in fresh}
        self.counts = {code: invite for code, invite in fresh.items() if code not in self._gone} | made

    # --- end of a round -----------------------------------------------------------------------------------------

    @property
    def settles_at(self) -> float:
        """When the round may end; infinity while an answer is missing."""
        if not self._steps or not self.is_covered:
            return NEVER
        deleted_at = [gone.at for gone in self._gone.values() if gone.deleted]
        return max([self._answered_at, *deleted_at]) + SETTLE_S

    def close(self, now: float) -> list[tuple[Join, Attribution]]:
        """End the round; its joins with their attributions. A blind round has none: it only yields the counts."""
        joins, attributions = list(self.joins.values()), []
        missing = len(joins) - sum(sum(rises.values()) for rises in self._steps)
        lagging = self.refresh_at < NEVER
        if self.blind:
            # The counts may not include the joins before them yet.
            is_unsure = self._asked_at < self._joined_at + LAG_S
        else:
            attributions = attribute(joins, self._steps, self._gone, self.counts, lagging=lagging)
            is_unsure = (missing != 0 or lagging) and any(
                isinstance(attribution, Unknown) for _, attribution in attributions
            )
        if self._asked_at >= self.refresh_at or self.blind:
            self.refresh_at = NEVER
        if is_unsure:
            # Counts that are not in the answers yet must not be attributed to a later join.
            self.refresh_at = now + LAG_S
        if missing > 0 or self.blind:
            self._gone.clear()
        self.blind = False
        self.joins = {}
        self._steps.clear()
        return attributions

    def invalidate(self) -> list[Join]:
        """The counts prove nothing any more: they are blind again. The joins of the round."""
        joins = list(self.joins.values())
        self.joins, self.blind, self.refresh_at = {}, True, NEVER
        self._steps.clear()
        self._gone.clear()
        return joins


def attribute(
    joins: list[Join],
    steps: list[dict[str, int]],
    gone: dict[str, Gone],
    counts: dict[str, Invite],
    *,
    lagging: bool = False,
) -> list[tuple[Join, Attribution]]:
    """The joins with their invites, by how the counts rose per answer. Names a code only if no other is possible."""
    total = sum(sum(rises.values()) for rises in steps)
    missing = len(joins) - total
    invites = counts | {code: each.invite for code, each in gone.items()}
    rising = {code for rises in steps for code in rises}
    candidates = tuple(sorted({invites[code].code for code in rising | (gone.keys() if missing > 0 else set())}))
    last_use = _last_use(gone, missing)
    if missing > 0 and not total and last_use is None:
        return [(join, Unknown(Reason.INVITE_GONE if gone else Reason.NO_INVITE, candidates)) for join in joins]
    parts = None
    if last_use is not None and rising <= {last_use}:
        # It is not known when it was used, only that all joins used it.
        parts = [(joins, {last_use: len(joins)})]
    elif not missing:
        parts = _parts(joins, steps)
    if parts is None or lagging:
        return [(join, Unknown(Reason.AMBIGUOUS, candidates)) for join in joins]
    return [(join, _of_part(part, invites, last_use)) for those, part in parts for join in those]


def _last_use(gone: dict[str, Gone], missing: int) -> str | None:
    """The one invite that is gone because the missing rises were its last uses; None when that is not certain."""
    if missing <= 0 or len(gone) != 1:
        return None
    ((code, only),) = gone.items()
    return code if only.deleted and only.step and only.invite.left == missing else None


def _parts(joins: list[Join], rises: list[dict[str, int]]) -> list[tuple[list[Join], dict[str, int]]] | None:
    """Split a round in which each join raised one count, at the answers that count exactly the joins before them.

    The joins up to such an answer caused the rises up to it; later joins did not contribute. None when an answer counts
    fewer joins than certainly preceded it: then not every join raised a count.
    """
    parts: list[tuple[list[Join], dict[str, int]]] = []
    waiting: list[Join] = []
    counted: dict[str, int] = {}
    for number, step in enumerate(rises, 1):
        waiting += [join for join in joins if join.by == number]
        for code, rise in step.items():
            counted[code] = counted.get(code, 0) + rise
        certain, total = len(waiting), sum(counted.values())
        if certain > total:
            return None
        if certain == total and certain:
            parts.append((waiting, counted))
            waiting, counted = [], {}
    return parts


def _of_part(rises: dict[str, int], invites: dict[str, Invite], last_use: str | None) -> Attribution:
    if len(rises) != 1:
        return Unknown(Reason.AMBIGUOUS, tuple(invites[code].code for code in rises))
    (code,) = rises
    return ByInvite(invites[code], vanity=code == VANITY, last_use=code == last_use)
