"""The one table of routes."""

from sandwich_node.api.resources import access, nodes
from sandwich_node.api.routing import Route

ROUTES: tuple[Route, ...] = (*nodes.ROUTES, *access.ROUTES)
