"""What other nodes and `sandwich` ask this node for, answered to them alone (`access.node_signatures`).

async def logs(request: web.Request) -> web.Response: ...
app.router.add_get("/internal/logs", between_nodes.only(logs))
"""

import logging
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from sandwich_coordinator.access.node_signatures import ANSWER_HEADER, NodeRequests, asked_at
from sandwich_coordinator.durations import clock_difference

_log = logging.getLogger(__name__)

SAID_EVERY_S = 600.0

Handler = Callable[[web.Request], Awaitable[web.Response]]
Allow = Callable[[web.Request], Awaitable[web.Response | None]]
"""Whether a request that no node signed is answered: None, or else the refusal."""


class BetweenNodes:
    """Checks signed requests and signs their answers."""

    def __init__(self, status_key: str, *, wall: Callable[[], float] = time.time) -> None:
        """`wall`: this node's clock, in Unix seconds."""
        self._requests = NodeRequests(status_key)
        self._wall = wall
        self._clock_said_at = float("-inf")

    def only(self, handler: Handler, *, others: Allow | None = None) -> Handler:
        """`handler` for nodes. `others` decides about requests without a node's signature; None: they get 401."""

        async def answer(request: web.Request) -> web.Response:
            header = request.headers.get("Authorization", "")
            nonce = self._requests.accept(header, request.method, request.raw_path)
            if nonce is None:
                # Signed for another node at this address: what is open to any client is answered, without a MAC.
                refusal = _refusal() if others is None else await others(request)
                return refusal if refusal is not None else await handler(request)
            self._compare_clocks(asked_at(nonce), request.remote or "")
            response = await handler(request)
            body = response.body or b""
            assert isinstance(body, bytes), "what nodes ask for is answered whole"
            response.headers[ANSWER_HEADER] = self._requests.mac(nonce, response.status, body)
            return response

        return answer

    def _compare_clocks(self, theirs: float, remote: str) -> None:
        """The status says the same; but it is this node's log that is read first."""
        ours = self._wall()
        differs = clock_difference(ours, theirs)
        if differs and abs(ours - self._clock_said_at) >= SAID_EVERY_S:
            self._clock_said_at = ours
            _log.warning(
                "the clock of this machine is %s that of %s, which asks this node: let NTP set both",
                differs,
                remote,
            )


def _refusal() -> web.Response:
    return web.Response(status=401, text="only nodes of this cluster may ask for this\n")
