"""Answers that follow from one snapshot of the cluster: written once, however many clients read the same thing."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from sandwich_coordinator.operations.snapshot import Snapshot

ANSWERS_MAX = 256
BYTES_MAX = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Written:
    """An answer as it is sent."""

    status: int
    headers: Mapping[str, str]
    body: bytes | None = None


class SnapshotAnswers:
    """Of the newest snapshot that was asked about, within ANSWERS_MAX and BYTES_MAX."""

    def __init__(self) -> None:
        self._of: Snapshot | None = None
        self._answers: dict[Hashable, Written] = {}
        self._bytes = 0

    def get(self, snapshot: Snapshot, asked: Hashable) -> Written | None:
        """The answer to `asked`: all that it depends on beside the snapshot. None: it is not known."""
        return self._answers.get(asked) if self._of is snapshot else None

    def keep(self, snapshot: Snapshot, asked: Hashable, answer: Written) -> None:
        """Keep it for others who ask."""
        if self._of is not snapshot:
            self._of, self._answers, self._bytes = snapshot, {}, 0
        size = len(answer.body or b"")
        if len(self._answers) < ANSWERS_MAX and self._bytes + size <= BYTES_MAX:
            self._answers[asked] = answer
            self._bytes += size
