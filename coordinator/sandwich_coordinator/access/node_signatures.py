"""Requests between nodes: who asks and who answers is shown with the asked node's own key. Pure.

Every process makes a random `status_key` and registers it in etcd (`NodeRecord`). Who can read the cluster's etcd may
ask: another node, or `sandwich`. The request carries a nonce and a MAC; the answer carries a MAC over that nonce. So a
stranger can neither ask nor speak as a node, and neither a request nor an answer can be used twice.
"""

import hashlib
import heapq
import hmac
import re
from dataclasses import dataclass, field

SCHEME = "Sandwich-Node"
ANSWER_HEADER = "Sandwich-Mac"
NONCES_MAX = 32_768
"""So many nonces are remembered. An asker whose clock is behind by the time of so many requests is refused."""
_NONCE = re.compile(r"[0-9]{13}[0-9a-f]{32}")
_AUTHORIZATION = re.compile(rf"{SCHEME} nonce=([0-9a-f]{{45}}), mac=([0-9a-f]{{64}})")


def nonce_at(wall_ms: int, random: bytes) -> str:
    """A nonce: 13 digits of Unix milliseconds, and 16 random bytes."""
    return f"{wall_ms:013d}{random.hex()}"


def asked_at(nonce: str) -> float:
    """What a nonce's maker took for the time, in Unix seconds."""
    return int(nonce[:13]) / 1000


def authorization(status_key: str, method: str, path: str, nonce: str) -> str:
    """The value of the header `Authorization`. `path`: with its query, as it is sent."""
    return f"{SCHEME} nonce={nonce}, mac={_request_mac(status_key, method, path, nonce)}"


def answer_mac(status_key: str, nonce: str, status: int, body: bytes) -> str:
    """The value of the answer's header `Sandwich-Mac`."""
    return _mac(status_key, "answer", nonce, str(status), hashlib.sha256(body).hexdigest())


def is_answer(status_key: str, nonce: str, status: int, body: bytes, mac: str) -> bool:
    """Whether this answer was made by the holder of the key, for this nonce."""
    return hmac.compare_digest(answer_mac(status_key, nonce, status, body).encode(), mac.encode(errors="replace"))


@dataclass
class NodeRequests:
    """The asked node's side. It remembers nonces while the process lives; its key does not live longer."""

    status_key: str = field(repr=False)
    nonces_max: int = NONCES_MAX
    _seen: set[str] = field(default_factory=set, repr=False)
    _oldest: list[str] = field(default_factory=list, repr=False)
    _forgotten: str = field(default="", repr=False)

    def accept(self, header: str, method: str, path: str) -> str | None:
        """The nonce of a request that is genuine and new; None for any other."""
        match = _AUTHORIZATION.fullmatch(header)
        if match is None or not self.status_key or not _NONCE.fullmatch(match[1]):
            return None
        nonce = match[1]
        expected = _request_mac(self.status_key, method, path, nonce)
        if not hmac.compare_digest(expected, match[2]) or nonce in self._seen or nonce <= self._forgotten:
            return None
        self._seen.add(nonce)
        heapq.heappush(self._oldest, nonce)
        if len(self._seen) > self.nonces_max:
            # Nonces sort by their time: what is not newer than a forgotten one may have been used.
            self._forgotten = heapq.heappop(self._oldest)
            self._seen.discard(self._forgotten)
        return nonce

    def mac(self, nonce: str, status: int, body: bytes) -> str:
        """See `answer_mac`."""
        return answer_mac(self.status_key, nonce, status, body)


def _request_mac(status_key: str, method: str, path: str, nonce: str) -> str:
    return _mac(status_key, "request", method, path, nonce)


def _mac(status_key: str, *parts: str) -> str:
    message = b"".join(len(part).to_bytes(4, "big") + part for part in map(str.encode, parts))
    return hmac.new(status_key.encode(), message, "sha256").hexdigest()
