"""The seam for what follows a shard's events and adds to them. Invite tracking is the one observer today.

An observer is attached at two points: to `ShardIntake.observer`, where it sees events as they are read, and as
`ShardEnricher.extra`, where it adds a field to those that it asked for. It never sees other events, and it never holds
one up for longer than it promises.
"""

from collections.abc import Sequence
from typing import Protocol

from sandwich_node.events.asks import ObserverAsk


class EventObserver(Protocol):
    """Follows some of a shard's events in the order in which they are read. No call waits."""

    @property
    def event_types(self) -> frozenset[str]:
        """The types of the events that `observe` takes."""

    def begin(self, session: str, bot: str) -> None:
        """A session begins, or the observer joins a running one. `session` is its hash, `bot` the bot's user id."""

    def observe(self, event_type: str, data: bytes, *, is_published: bool) -> ObserverAsk | None:
        """Look at an event, by the JSON of its `d`. Returns an ask if the event has to leave with a field added.

        An event that is not published (`is_published`) gets none.
        """

    def interrupt(self) -> None:
        """`observe` failed on an event: what was followed until now may have changed unseen."""

    def is_reading(self, reading: bool) -> None:
        """Whether the shard reads its socket, or waits for room."""


class ExtraSource(Protocol):
    """Answers asks, before their events leave."""

    @property
    def extra_name(self) -> str:
        """The name of the field in `__extra`."""

    @property
    def is_whole(self) -> bool:
        """Whether what is kept in Redis for this has all that was read."""

    async def resolve(self, asks: Sequence[ObserverAsk]) -> Sequence[bytes]:
        """The field's JSON value for each ask. Takes a bounded time.

        While it is not whole it is called for every batch, also without asks."""
