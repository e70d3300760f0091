"""Who sends a request. No sender is known yet, so that only routes without a role answer."""

from aiohttp import web

from sandwich_coordinator.access.roles import ANONYMOUS, Identity
from sandwich_node.api.routing import Call, Route


async def identify(_request: web.Request, _route: Route) -> Identity:
    """The identity of the sender."""
    return ANONYMOUS


async def record(_call: Call, _route: Route, _error: Exception | None) -> None:
    """Write a change to the audit log."""
