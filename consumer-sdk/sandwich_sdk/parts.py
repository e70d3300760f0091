"""Joins the parts of an event that is too large for one message. Pure.

The first part represents the frame: the worker that receives it reads the others from the stream, where they follow in
the same chain. A worker that receives another part acknowledges it at once. So parts may be delivered to different
workers of a group, and more than once, and the frame is still handled as a whole. If another message follows in the
chain (a fence: the writer died), the rest never comes; the new writer sends all parts again.
"""

from dataclasses import dataclass, field

from sandwich_sdk.wire.headers import FrameHeaders

INTERRUPTED = "interrupted"
INCOMPLETE = "incomplete"
COMPLETE = "complete"


@dataclass(slots=True)
class Assembly:
    """Parts of one frame, collected in chain order, starting with the first."""

    subject: str
    first: FrameHeaders
    chunks: list[bytes] = field(default_factory=list)
    state: str = INCOMPLETE

    def add(self, subject: str, headers: FrameHeaders, payload: bytes) -> None:
        """Process the chain's next message and set `state`."""
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
        """The joined payload, once complete."""
        return b"".join(self.chunks)
