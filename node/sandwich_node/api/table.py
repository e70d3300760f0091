"""The one table of routes."""

from sandwich_node.api.resources import live, logs, nodes, webhooks
from sandwich_node.api.routing import Route

ROUTES: tuple[Route, ...] = (*nodes.ROUTES, *live.ROUTES, *logs.ROUTES, *webhooks.ROUTES)
