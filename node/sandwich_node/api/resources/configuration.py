"""The stored configuration as a cluster file."""

from typing import Any

from sandwich_coordinator.access.roles import Role
from sandwich_coordinator.operations.configuration import read_configuration
from sandwich_coordinator.operations.export import exported_cluster
from sandwich_node.api.models import Model
from sandwich_node.api.routing import Call, Route


class Configuration(Model):
    """`file`: as cluster.yml has it; secrets are replaced by the names of variables.

    `is_checked`: the cluster key confirms who wrote the addresses in it, or the cluster has none.
    """

    file: dict[str, Any]
    is_checked: bool


async def _show(call: Call) -> Configuration:
    parts = call.cluster
    stored = await read_configuration(parts.store, parts.keys, parts.key)
    exported = exported_cluster(parts.keys.cluster, stored.settings, stored.apps)
    return Configuration(file=exported, is_checked=stored.is_checked)


ROUTES = (
    Route(
        method="GET",
        path="/configuration",
        summary="The stored configuration, as a cluster file",
        description="It has the addresses of the cluster's servers: hence the role.",
        role=Role.ADMIN,
        handler=_show,
        tag="cluster",
        result=Configuration,
        cluster_wide=True,
        errors=("refused",),
    ),
)
