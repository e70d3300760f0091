"""The one table of routes."""

from sandwich_node.api.resources import (
    access,
    apps,
    bot_commands,
    cache,
    configuration,
    consumers,
    document,
    groups,
    history,
    live,
    logs,
    lookups,
    nodes,
    overview,
    removal,
    shards,
    snapshot,
    webhooks,
)
from sandwich_node.api.routing import Route

ROUTES: tuple[Route, ...] = (
    *document.ROUTES,
    *overview.ROUTES,
    *history.ROUTES,
    *snapshot.ROUTES,
    *configuration.ROUTES,
    *nodes.ROUTES,
    *apps.ROUTES,
    *removal.ROUTES,
    *groups.ROUTES,
    *shards.ROUTES,
    *consumers.ROUTES,
    *lookups.ROUTES,
    *cache.ROUTES,
    *bot_commands.ROUTES,
    *live.ROUTES,
    *logs.ROUTES,
    *webhooks.ROUTES,
    *access.ROUTES,
)
