"""Faults with a duration: refused connections, HTTP errors, late HELLO, shuffled chunks. Pure; each ends by itself."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HttpFault:
    """Requests whose path starts with `path` are answered with `status` until `until`."""

    path: str
    status: int
    until: float


@dataclass(frozen=True, slots=True)
class HttpDelay:
    """Requests whose path starts with `path` take `delay_s` longer until `until`."""

    path: str
    delay_s: float
    until: float


class Faults:
    """The active faults. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._refuse_until = 0.0
        self._http: list[HttpFault] = []
        self._slow: list[HttpDelay] = []
        self._hello_delay_s = 0.0
        self._hello_until = 0.0
        self._op7_before_hello_until = 0.0
        self._shuffle_until = 0.0
        self.identify_invalid_until = 0.0
        self.resume_invalid_until = 0.0

    def refuse_connections(self, until: float) -> None:
        """New gateway connections are cut before the WebSocket handshake."""
        self._refuse_until = until

    def answer_http(self, fault: HttpFault) -> None:
        """REST calls fail."""
        self._http.append(fault)

    def delay_http(self, delay: HttpDelay) -> None:
        """REST calls are slow."""
        self._slow.append(delay)

    def delay_hello(self, delay_s: float, until: float) -> None:
        """HELLO is late on connections opened before `until`."""
        self._hello_delay_s, self._hello_until = delay_s, until

    def reconnect_before_hello(self, until: float) -> None:
        """Connections opened before `until` get op 7 instead of HELLO."""
        self._op7_before_hello_until = until

    def shuffle_chunks(self, until: float) -> None:
        """Chunks of member lists requested before `until` are sent out of order."""
        self._shuffle_until = until

    def chunk_order(self, count: int, now: float) -> list[int]:
        """The order in which `count` chunks are sent now. Last first is the worst case for order-dependent clients."""
        return list(range(count))[:: -1 if now < self._shuffle_until else 1]

    def is_refusing(self, now: float) -> bool:
        """Whether a new gateway connection is to be cut."""
        return now < self._refuse_until

    def http_status(self, path: str, now: float) -> int | None:
        """The status to answer this path with; None for the regular answer."""
        self._http = [fault for fault in self._http if now < fault.until]
        return next((fault.status for fault in self._http if path.startswith(fault.path)), None)

    def http_delay_s(self, path: str, now: float) -> float:
        """How much longer this path takes."""
        self._slow = [delay for delay in self._slow if now < delay.until]
        return max((delay.delay_s for delay in self._slow if path.startswith(delay.path)), default=0.0)

    def hello_delay_s(self, now: float) -> float:
        """How late HELLO is on a connection opened now."""
        return self._hello_delay_s if now < self._hello_until else 0.0

    def skips_hello(self, now: float) -> bool:
        """Whether a connection opened now gets op 7 instead of HELLO."""
        return now < self._op7_before_hello_until
