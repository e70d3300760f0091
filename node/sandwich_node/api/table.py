"""The one table of routes."""

from sandwich_node.api.resources import apps, document, groups, nodes, overview, shards
from sandwich_node.api.routing import Route

ROUTES: tuple[Route, ...] = (
    *document.ROUTES,
    *overview.ROUTES,
    *nodes.ROUTES,
    *apps.ROUTES,
    *groups.ROUTES,
    *shards.ROUTES,
)
