"""Putting together an event that is too large for one message. Pure.

The first part stands for the frame: who holds it reads the others from the stream, where they follow in the same
chain; the other parts are acknowledged on sight. So parts may be delivered to different workers of a group, and be
delivered again, and the frame is handled whole. A chain that goes on otherwise (a fence: the writer died) means the
rest will never come; the new writer sends all parts again.
"""

from dataclasses import dataclass, field

from sandwich_sdk.wire.headers import FrameHeaders

INTERRUPTED = "interrupted"
INCOMPLETE = "incomplete"
COMPLETE = "complete"


@dataclass(slots=True)
class Assembly:
    """Parts of one frame, gathered in chain order from its first part on."""

    subject: str
    first: FrameHeaders
    chunks: list[bytes] = field(default_factory=list)
    state: str = INCOMPLETE

    def add(self, subject: str, headers: FrameHeaders, payload: bytes) -> None:
        """Look at the chain's next message; `state` says what is known after it."""
        if headers.epoch == self.first.epoch and subject != self.subject:
            return
        assert self.first.part is not None
        total = self.first.part[1]
        expected = (len(self.chunks) + 1, total)
        range_of = (self.first.session, self.first.first_seq, self.first.last_seq, self.first.epoch)
        if (
            headers.part != expected
            or (headers.session, headers.first_seq, headers.last_seq, headers.epoch) != range_of
        ):
            self.state = INTERRUPTED
            return
        self.chunks.append(payload)
        if len(self.chunks) == total:
            self.state = COMPLETE

    @property
    def payload(self) -> bytes:
        """The whole frame's payload, once complete."""
        return b"".join(self.chunks)
