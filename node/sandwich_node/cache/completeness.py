"""Whether a shard's cache has everything that Discord sent, and how a resync completes it. Pure.

A resync reads every guild again. What changes meanwhile is recorded, to be repeated after the guild is written.
"""

from collections.abc import Callable

from sandwich_node.cache.batch import Batch
from sandwich_node.cache.context import Op
from sandwich_node.cache.replies import Applied

RECORDED_BYTES_MAX = 32 * 1024 * 1024
_OF_USERS = frozenset({"user", "user_patch", "user_set", "user_drop"})


class Completeness:
    """`lacks`: why the cache lacks something; "" while it is not known to lack anything.

    `is_urgent`: it lacks more than unreadable events. `changed(lacks)` is called when it begins or ceases to lack
    something, and must not wait.
    """

    def __init__(self, changed: Callable[[str], None]) -> None:
        self.lacks = ""
        self.is_urgent = False
        self._changed = changed
        self._applied_to = 0
        self._recorded: dict[str, list[Op]] | None = None
        self._recorded_bytes = 0
        self._has_unread_guild = False

    def lost(self, reason: str, *, is_urgent: bool = True) -> None:
        """The cache lacks changes of this shard's guilds, until a resync. The first reason counts."""
        self.is_urgent = self.is_urgent or is_urgent
        if not self.lacks:
            self.lacks = reason
            self._changed(reason)

    def gave_up(self, reason: str) -> None:
        """Changes were dropped, possibly also those of a resync."""
        self._recorded = None
        self.lost(reason)

    def wrote(self, batch: Batch, applied: Applied, *, starts_session: bool) -> None:
        """Redis has answered for a batch. `starts_session`: it begins with READY."""
        if starts_session:
            # READY: every guild follows.
            self._is_complete()
            self._recorded = None
        elif applied.is_first and not applied.newer:
            self._lost_writes("Redis has no record of this session: it was emptied, or is new")
        elif applied.stood is not None and applied.stood < self._applied_to:
            self._lost_writes("Redis lost what was written last")
        self._applied_to = batch.events[-1].seq
        if self._recorded is not None:
            self._record(batch, self._recorded)

    def _lost_writes(self, reason: str) -> None:
        """Redis lost writes, possibly also those of a resync."""
        if self._applied_to:
            self._recorded = None
        self.lost(reason)

    def _is_complete(self) -> None:
        if self.lacks:
            self.lacks, self.is_urgent = "", False
            self._changed("")

    # --- resync ---------------------------------------------------------------------------------------------------

    def begin_resync(self) -> None:
        """Record the operations on each guild from now on."""
        self._recorded = {}
        self._recorded_bytes = 0
        self._has_unread_guild = False

    @property
    def is_recording(self) -> bool:
        """Whether a resync may continue. It must end when the record is too large or a new session began."""
        return self._recorded is not None

    def could_not_read_guild(self) -> None:
        """A guild of the resync could not be read."""
        self._has_unread_guild = True

    def since_resync(self, guild: str) -> tuple[Op, ...]:
        """The operations on a guild since the resync began.

        Operations state results and not differences, so repeating one that the guild already contains is harmless.
        They stay recorded: a call that failed is repeated, and a guild may arrive twice.
        """
        return tuple(self._recorded.get(guild, ())) if self._recorded is not None else ()

    def end_resync(self, *, complete: bool) -> bool:
        """Every guild was written again (`complete`), or not. Returns whether the cache has what was readable."""
        is_done = complete and self._recorded is not None
        self._recorded = None
        if is_done:
            self._is_complete()
            if self._has_unread_guild:
                self.lost("a guild could not be read", is_urgent=False)
        return is_done

    def _record(self, batch: Batch, recorded: dict[str, list[Op]]) -> None:
        for event in batch.events:
            for op in event.ops:
                if op[1] and op[0] not in _OF_USERS:
                    recorded.setdefault(str(op[1]), []).append(op)
            self._recorded_bytes += event.size
        if self._recorded_bytes > RECORDED_BYTES_MAX:
            self._recorded = None
