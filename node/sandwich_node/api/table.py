"""The one table of routes."""

from sandwich_node.api.resources import (
    access,
    apps,
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
