"""Which address a shard connects to, and when the general one is in doubt. Pure.

A session has an address of its own (READY's `resume_gateway_url`); everything else goes to the general one, which
`GET /gateway/bot` named. While connections fail, a shard with a session tries the two in turn. An address is reached
when HELLO came from it: an open socket proves nothing.
"""

from collections.abc import Callable

from sandwich_node.gateway import payloads
from sandwich_node.gateway.session import Session

UNREACHABLE_AFTER_S = 5.0
"""After so long without a HELLO from the general address it may be the wrong one."""


class Reach:
    """The addresses of one shard."""

    __slots__ = ("_general_since", "_prefer_general", "_refusal", "_target", "general")

    def __init__(self, general: str, refusal: Callable[[str], str] = lambda url: "") -> None:
        """`refusal`: why a token must not be sent to an address, "" when it may."""
        self._refusal = refusal
        self.general = general
        self._target = general
        self._prefer_general = False
        self._general_since: float | None = None

    def next(self, session: Session | None, now: float) -> str:
        """The address to connect to now."""
        if session is not None and not self._prefer_general and self._may_resume_at(session.resume_url):
            self._target = session.resume_url
            return self._target
        if self._general_since is None:
            self._general_since = now
        self._target = self.general
        return self._target

    def _may_resume_at(self, url: str) -> bool:
        return payloads.usable_resume_url(url, self.general) and not self._refusal(url)

    def failed(self, now: float) -> bool:
        """No HELLO came: try the other address next. True: the general address may be the wrong one."""
        self.other()
        since = self._general_since
        return self.at_general and since is not None and now - since >= UNREACHABLE_AFTER_S

    def greeted(self) -> None:
        """HELLO came."""
        self._general_since = None

    def not_tried(self) -> None:
        """No connection was tried, for want of something here: how long there was no HELLO proves nothing."""
        self._general_since = None

    def other(self) -> None:
        """The next connection goes to the other address."""
        self._prefer_general = not self._prefer_general

    def reset(self) -> None:
        """The next connection goes to the session's own address again, if there is one."""
        self._prefer_general = False

    @property
    def at_general(self) -> bool:
        """Whether the present connection, or the last one, is to the general address."""
        return self._target == self.general

    def moved(self, general: str) -> bool:
        """The general address is another one. True: the one before did not answer, so try this one next."""
        failing = self._general_since is not None
        self.general = general
        if failing:
            self._general_since = None
            self._prefer_general = True
        return failing
