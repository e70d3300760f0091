"""The bookkeeping of one guild's invites: which counts rose since the last time, and who they may belong to. Pure.

A *round* begins with a join and ends when an answer of Discord's covers every join seen. What makes its verdicts true:

1. Every join raises one count by one, or none; nothing else raises a count.
2. An answer that was asked for after a join's event was seen counts that join.
3. Who joined before an answer was given is seen at most `SETTLE_S` after it. So a round ends when the last answer is
   that old and nobody came since it was asked for; whoever came must be covered by a further answer.

Discord promises no order between REST and gateway: a count may rise only after its join was judged. So after a join
that no count explains, what rises until an answer that was asked for `LAG_S` later is given to nobody.
"""

import math
from dataclasses import dataclass, field

from sandwich_node.invites.attribution import Attribution, ByInvite, Reason, Unknown
from sandwich_node.invites.wire import VANITY, Invite

NEVER = math.inf
SETTLE_S = 0.1
LAG_S = 2.0
NEAR_S = 0.5
"""INVITE_DELETE comes so close to the GUILD_MEMBER_ADD of an invite's last use, before or after it."""
EXPIRY_MARGIN_S = 5.0
"""Our clock against Discord's."""
JOINS_MAX = 1000
INVITES_MAX = 2000
"""More than a guild can have at a time; beyond it new ones are not noted, which is safe: their first count is 0."""


@dataclass(slots=True)
class Join:
    """One person who joined. `by`: the number of the first answer that surely counts it, 0 while none is asked for."""

    user: str
    handles: list[int]
    by: int = 0


@dataclass(slots=True)
class Gone:
    """An invite that vanished. `deleted`: INVITE_DELETE said so. `step`: the first answer without it, 0: none yet."""

    invite: Invite
    at: float
    deleted: bool
    step: int = 0


@dataclass(slots=True)
class InviteCounts:
    """The counts of one guild as last told, and the round that is under way. Times are monotonic seconds.

    It is `blind` until a first round ended: the counts before it are not known.
    """

    blind: bool = True
    counts: dict[str, Invite] = field(default_factory=dict)
    joins: dict[str, Join] = field(default_factory=dict)
    _steps: list[dict[str, int]] = field(default_factory=list)
    _gone: dict[str, Gone] = field(default_factory=dict)
    _made: set[str] = field(default_factory=set)
    _over: frozenset[str] = frozenset()
    _told_at: float = NEVER
    _opened_at: float = NEVER
    _asked_at: float = -NEVER
    _joined_at: float = -NEVER
    refresh_at: float = NEVER
    """From then on another answer is wanted, for the counts that rose late; infinity for never."""

    # --- what happens -------------------------------------------------------------------------------------------

    def joined(self, user: str, handle: int, now: float, wall_s: float) -> None:
        """Somebody came. A repeated event of the same person is one join."""
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
        """A round begins: what was gone long before it has nothing to do with it. Nobody tells us of expiry."""
        self._opened_at = now
        self._forget_gone(now)
        latest_s = wall_s - EXPIRY_MARGIN_S
        ends = ((code, invite.expires_at) for code, invite in self.counts.items())
        self._over = frozenset(code for code, end_s in ends if end_s is not None and end_s < latest_s)

    def _forget_gone(self, now: float) -> None:
        self._gone = {code: gone for code, gone in self._gone.items() if gone.at >= now - NEAR_S}

    def made(self, invite: Invite) -> None:
        """INVITE_CREATE. Late ones say 0 uses of an invite whose uses are known by now."""
        known = invite.code in self.counts or invite.code in self._gone
        if not known and len(self.counts) < INVITES_MAX:
            self.counts[invite.code] = invite
            self._made.add(invite.code)

    def deleted(self, code: str, now: float) -> bool:
        """INVITE_DELETE; whether it was known."""
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
        """The invites of a channel go with it; whether there were any."""
        codes = [code for code, invite in self.counts.items() if invite.channel == channel]
        for code in codes:
            self._gone[code] = Gone(self.counts.pop(code), now, deleted=False)
        return bool(codes)

    # --- asking -------------------------------------------------------------------------------------------------

    @property
    def is_covered(self) -> bool:
        """Whether no further answer is needed."""
        told = len(self._steps)
        if self.blind:
            return told > 0 and not self.joins
        return all(0 < join.by <= told for join in self.joins.values())

    def asked(self, now: float) -> None:
        """A request goes out now: it will count everybody seen so far, of whom a blind account need know no more."""
        self._made.clear()
        self._asked_at = now
        if self.blind:
            self.joins.clear()
        for join in self.joins.values():
            join.by = join.by or len(self._steps) + 1

    def unanswered(self) -> None:
        """The request failed: it counts nobody."""
        if self.blind:
            self._steps.clear()
        for join in self.joins.values():
            join.by = 0 if join.by > len(self._steps) else join.by

    def told(self, fresh: dict[str, Invite], now: float) -> None:
        """An answer: all invites of the guild, and the vanity URL by the key VANITY."""
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
        self._told_at = now

    def _rise(self, code: str, before: Invite | None, invite: Invite, now: float, step: int) -> int:
        """By how much a count rose. One that cannot be compared becomes a mere candidate, as if it were gone."""
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
        """The answer's counts are the known ones. It may still show what we heard was deleted, or lack what is new."""
        for code, gone in list(self._gone.items()):
            if code not in fresh:
                gone.step = gone.step or step
            elif gone.deleted:
                gone.invite = fresh[code]
            else:
                del self._gone[code]
        made = {code: self.counts[code] for code in self._made if code in self.counts and code not in fresh}
        self.counts = {code: invite for code, invite in fresh.items() if code not in self._gone} | made

    # --- ending a round -----------------------------------------------------------------------------------------

    @property
    def settles_at(self) -> float:
        """When the round may end; infinity while an answer is missing."""
        if not self._steps or not self.is_covered:
            return NEVER
        heard = [gone.at for gone in self._gone.values() if gone.deleted]
        return max([self._told_at, *heard]) + SETTLE_S

    def close(self, now: float) -> list[tuple[Join, Attribution]]:
        """Ends the round; what is known of everybody in it. A blind round ends in knowing the counts, no more."""
        joins, verdicts = list(self.joins.values()), []
        missing = len(joins) - sum(sum(rises.values()) for rises in self._steps)
        lagging = self.refresh_at < NEVER
        if self.blind:
            # Who came before the counts were known may not be in them yet.
            is_unsure = self._asked_at < self._joined_at + LAG_S
        else:
            verdicts = judge(joins, self._steps, self._gone, self.counts, lagging=lagging)
            is_unsure = (missing != 0 or lagging) and any(isinstance(verdict, Unknown) for _, verdict in verdicts)
        if self._asked_at >= self.refresh_at or self.blind:
            self.refresh_at = NEVER
        if is_unsure:
            # Counts that are not in the answers yet are nobody's.
            self.refresh_at = now + LAG_S
        if missing > 0 or self.blind:
            self._gone.clear()
        self.blind = False
        self.joins = {}
        self._steps.clear()
        return verdicts

    def spoil(self) -> list[Join]:
        """The counts prove nothing any more: the account is blind again. Everybody who was in the round."""
        joins = list(self.joins.values())
        self.joins, self.blind, self.refresh_at = {}, True, NEVER
        self._steps.clear()
        self._gone.clear()
        return joins


def judge(
    joins: list[Join],
    steps: list[dict[str, int]],
    gone: dict[str, Gone],
    counts: dict[str, Invite],
    *,
    lagging: bool = False,
) -> list[tuple[Join, Attribution]]:
    """Who came by what, given how the counts rose from answer to answer. Says a code only if no other is possible."""
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
        # When it was used is not known, only that everybody did.
        parts = [(joins, {last_use: len(joins)})]
    elif not missing:
        parts = _parts(joins, steps)
    if parts is None or lagging:
        return [(join, Unknown(Reason.AMBIGUOUS, candidates)) for join in joins]
    return [(join, _of_part(part, invites, last_use)) for those, part in parts for join in those]


def _last_use(gone: dict[str, Gone], missing: int) -> str | None:
    """The one invite that vanished because its last uses were the missing ones; None when it is not that clear."""
    if missing <= 0 or len(gone) != 1:
        return None
    ((code, only),) = gone.items()
    return code if only.deleted and only.step and only.invite.left == missing else None


def _parts(joins: list[Join], rises: list[dict[str, int]]) -> list[tuple[list[Join], dict[str, int]]] | None:
    """Cuts a round in which everybody raised one count, where an answer counts those who surely came, and nobody else.

    Up to such an answer the joins and the rises are each other's: who came later had no part in it. None when an
    answer counts fewer than surely came, so that not everybody raised a count after all.
    """
    parts: list[tuple[list[Join], dict[str, int]]] = []
    waiting: list[Join] = []
    counted: dict[str, int] = {}
    for number, step in enumerate(rises, 1):
        waiting += [join for join in joins if join.by == number]
        for code, rise in step.items():
            counted[code] = counted.get(code, 0) + rise
        surely, total = len(waiting), sum(counted.values())
        if surely > total:
            return None
        if surely == total and surely:
            parts.append((waiting, counted))
            waiting, counted = [], {}
    return parts


def _of_part(rises: dict[str, int], invites: dict[str, Invite], last_use: str | None) -> Attribution:
    if len(rises) != 1:
        return Unknown(Reason.AMBIGUOUS, tuple(invites[code].code for code in rises))
    (code,) = rises
    return ByInvite(invites[code], vanity=code == VANITY, last_use=code == last_use)
