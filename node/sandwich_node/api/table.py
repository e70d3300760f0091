"""The one table of routes."""

from sandwich_node.api.resources import live, nodes, snapshot
from sandwich_node.api.routing import Route

ROUTES: tuple[Route, ...] = (
    *snapshot.ROUTES,
    *nodes.ROUTES,
    *live.ROUTES,
)
