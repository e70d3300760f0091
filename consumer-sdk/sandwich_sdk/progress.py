"""What this process has done of each frame. Pure, bounded: the oldest frames are forgotten first."""

from collections import OrderedDict
from dataclasses import dataclass, field

from sandwich_sdk.backoff import doubled_s

FRAMES_REMEMBERED_MAX = 4096

FrameKey = tuple[str, int, int]
"""A frame's stream, its sequence there, and when it was stored (Unix ns)."""


@dataclass(slots=True)
class Done:
    """Events of one frame that need not run again: those before `position`, but for the `failed` ones.

    tries  tries that were begun of events not handled yet, by event id
    noted  the tries that the group's other workers can read
    """

    position: int = 0
    failed: list[int] = field(default_factory=list)
    tries: dict[str, int] = field(default_factory=dict)
    noted: dict[str, int] = field(default_factory=dict)

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
        """The event at `offset` failed, and the ones behind it may go on."""
        if offset >= self.position:
            self.failed.append(offset)
            self.position = offset + 1

    def recall(self, noted: dict[str, int]) -> None:
        """Other workers of the group have noted these tries."""
        self.noted = noted
        for event_id, tries in noted.items():
            self.tries[event_id] = max(tries, self.tries.get(event_id, 0))


class Progress:
    """`Done` by frame, for frames that may be delivered again."""

    def __init__(self, limit: int = FRAMES_REMEMBERED_MAX) -> None:
        self._limit = limit
        self._frames: OrderedDict[FrameKey, Done] = OrderedDict()

    def of(self, key: FrameKey) -> Done:
        """What was done of this frame; the answer is shared, marking it is remembered."""
        done = self._frames.get(key)
        if done is None:
            done = self._frames[key] = Done()
            if len(self._frames) > self._limit:
                self._frames.popitem(last=False)
        else:
            self._frames.move_to_end(key)
        return done


def retry_delay_s(nak_delay_s: float, tries: int, *, longest_s: float = 60.0) -> float:
    """How long a frame waits after its `tries`-th failed delivery: doubling, up to `longest_s`."""
    return doubled_s(nak_delay_s, max(longest_s, nak_delay_s), tries)
