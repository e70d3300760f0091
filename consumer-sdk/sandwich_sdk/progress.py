"""Which events of each frame this process has handled. Pure and bounded: the oldest frames are dropped first."""

from collections import OrderedDict
from dataclasses import dataclass, field

from sandwich_sdk.backoff import doubled_s

FRAMES_REMEMBERED_MAX = 4096

FrameKey = tuple[str, int, int]
"""A frame's stream, its sequence there, and when it was stored (Unix ns)."""


@dataclass(slots=True)
class FrameProgress:
    """Events of one frame that need not run again: those before `position`, except the `failed` ones.

    tries        tries of events that are not handled yet, by event id
    saved_tries  the tries that the other workers of the group can read
    """

    position: int = 0
    failed: list[int] = field(default_factory=list)
    tries: dict[str, int] = field(default_factory=dict)
    saved_tries: dict[str, int] = field(default_factory=dict)

    def remaining(self, count: int) -> list[int]:
        """Offsets of a frame of `count` events that still have to be handled, in order."""
        return [*self.failed, *range(self.position, count)]

    def mark(self, offset: int) -> None:
        """The event at `offset` was handled."""
        if offset in self.failed:
            self.failed.remove(offset)
        else:
            self.position = max(self.position, offset + 1)

    def mark_failed(self, offset: int) -> None:
        """The event at `offset` failed. The ones after it may be handled."""
        if offset >= self.position:
            self.failed.append(offset)
            self.position = offset + 1

    def load_tries(self, saved: dict[str, int]) -> None:
        """Take over the tries that other workers of the group saved."""
        self.saved_tries = saved
        for event_id, tries in saved.items():
            self.tries[event_id] = max(tries, self.tries.get(event_id, 0))


class Progress:
    """`FrameProgress` by frame, for frames that may be delivered again."""

    def __init__(self, limit: int = FRAMES_REMEMBERED_MAX) -> None:
        self._limit = limit
        self._frames: OrderedDict[FrameKey, FrameProgress] = OrderedDict()

    def of(self, key: FrameKey) -> FrameProgress:
        """The record of this frame. It is shared: changes of it are kept."""
        done = self._frames.get(key)
        if done is None:
            done = self._frames[key] = FrameProgress()
            if len(self._frames) > self._limit:
                self._frames.popitem(last=False)
        else:
            self._frames.move_to_end(key)
        return done


def retry_delay_s(nak_delay_s: float, tries: int, *, longest_s: float = 60.0) -> float:
    """Delay after a frame's `tries`-th failed delivery: it doubles each time, up to `longest_s`."""
    return doubled_s(nak_delay_s, max(longest_s, nak_delay_s), tries)
