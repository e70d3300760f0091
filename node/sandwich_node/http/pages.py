"""Who may read `/healthz`, `/readyz`, `/metrics`, `/status`: any client where they are open, else nodes and viewers."""

from aiohttp import web

from sandwich_coordinator.access.exposure import OPEN_PAGES, open_pages
from sandwich_coordinator.access.roles import Role
from sandwich_node.api.access import Access
from sandwich_node.api.problem_details import ApiError
from sandwich_node.api.server import problem_response
from sandwich_node.http.app import Guard
from sandwich_node.http.node_requests import BetweenNodes, Handler


def page_guards(access: Access, between_nodes: BetweenNodes, host: str) -> dict[str, Guard]:
    """What is asked before each page of a node that listens on `host`."""

    def guard(page: str) -> Guard:
        async def others(request: web.Request) -> web.Response | None:
            if page in open_pages(access.settings.open, host):
                return None
            try:
                identity = access.identity_of(request, is_change=False)
            except ApiError as error:
                return problem_response(error)
            if identity.has_role(Role.VIEWER) and identity.apps is None:
                return None
            refused = f"/{page} is not open here (api.open in cluster.yml): send the API token of a viewer"
            return problem_response(ApiError("unauthenticated", refused))

        def before(handler: Handler) -> Handler:
            return between_nodes.only(handler, others=others)

        return before

    return {page: guard(page) for page in OPEN_PAGES}
