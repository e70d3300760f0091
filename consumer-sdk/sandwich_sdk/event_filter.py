"""Which events a consumer receives, by type or by derived name. Pure."""

from collections.abc import Sequence

from sandwich_sdk.event import Event
from sandwich_sdk.guild_events import source_types


class EventFilter:
    """Selects the events that all of these sets name; None names all events."""

    def __init__(self, *wanted: frozenset[str] | None) -> None:
        self._wanted = [names for names in wanted if names is not None]
        self._types = [source_types(names) for names in self._wanted]

    def may_hold(self, types: frozenset[str]) -> bool:
        """Whether a frame with events of these types may contain a selected one."""
        return not any(selected.isdisjoint(types) for selected in self._types)

    def of(self, events: Sequence[Event]) -> list[Event]:
        """The selected events, in order."""
        return [event for event in events if all(_is_named(event, names) for names in self._wanted)]


def _is_named(event: Event, names: frozenset[str]) -> bool:
    return event.type in names or event.derived in names
