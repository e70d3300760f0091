"""The token for a cluster's first admin: made once in the cluster, shown once, on the node that made it.

Who reads a node's own output is the operator. The token is not logged: logs are collected and kept.
"""

import asyncio
import logging
from collections.abc import Callable

from sandwich_coordinator.access.exposure import is_api_on
from sandwich_coordinator.operations.access import create_first_token
from sandwich_coordinator.store.base import StoreError
from sandwich_node.api.access import Access

_log = logging.getLogger(__name__)

LOOK_S = 1.0
Show = Callable[[str], None]


async def offer_first_admin(access: Access, host: str, show: Show | None) -> None:
    """Wait until this node serves the API; if no one has access then, make the token and `show` it.

    `show` None: none is made, and the log says how to make one.
    """
    cluster = access.cluster
    while True:
        view = cluster.facts.view()
        if view is not None and is_api_on(access.settings.enabled, host):
            if view.tokens or view.users:
                return
            if show is None:
                _log.info("no one has access to the HTTP API yet: sandwich token create NAME --role admin")
                return
            try:
                made = await create_first_token(cluster.store, cluster.keys, cluster.key, access.wall())
            except StoreError as error:
                _log.warning("no token for a first admin: %s", error)
            else:
                if made is not None:
                    show(made.text)
                return
        await asyncio.sleep(LOOK_S)
