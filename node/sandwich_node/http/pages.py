"""Who may read `/healthz`, `/readyz`, `/metrics` and `/status`: anybody where they are open, else nodes."""

from aiohttp import web

from sandwich_coordinator.access.exposure import OPEN_PAGES, open_pages
from sandwich_node.agent.node_facts import NodeFacts
from sandwich_node.http.app import Guard
from sandwich_node.http.node_requests import BetweenNodes, Handler


def page_guards(facts: NodeFacts, between_nodes: BetweenNodes, host: str) -> dict[str, Guard]:
    """What stands before each page of a node that listens on `host`."""

    def guard(page: str) -> Guard:
        async def others(_request: web.Request) -> web.Response | None:
            if page in open_pages(None, host):
                return None
            return web.Response(status=401, text=f"/{page} is not open to anybody here: api.open in cluster.yml\n")

        def before(handler: Handler) -> Handler:
            return between_nodes.only(handler, others=others)

        return before

    return {page: guard(page) for page in OPEN_PAGES}
