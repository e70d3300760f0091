"""The one table of routes."""

from sandwich_node.api.resources import (
    access,
    apps,
    document,
    groups,
    live,
    logs,
    nodes,
    overview,
    shards,
    snapshot,
)
from sandwich_node.api.routing import Route

ROUTES: tuple[Route, ...] = (
    *document.ROUTES,
    *overview.ROUTES,
    *snapshot.ROUTES,
    *nodes.ROUTES,
    *apps.ROUTES,
    *groups.ROUTES,
    *shards.ROUTES,
    *live.ROUTES,
    *logs.ROUTES,
    *access.ROUTES,
)
