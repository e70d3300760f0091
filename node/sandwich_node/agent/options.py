"""What `sandwich-node join` was started with."""

from dataclasses import dataclass, field

from sandwich_coordinator.addresses import Address
from sandwich_node import ipc, open_files


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOptions:
    """The options of one node. `advertise` None: the listening address.

    `max_shards` 0: no limit. `etcd` lets workers release the node's lease when the agent's process dies.
    `open_files`: how many file descriptors a process of this node may have. `status_key`: see `NodeRecord`; "": none.
    `tls_fingerprint`: of the certificate that the node shows at its start; "": it serves plain HTTP.
    """

    node: str
    cluster: str
    listen: Address
    workers: int
    capacity: int
    labels: dict[str, str]
    max_shards: int = 0
    advertise: str | None = None
    log_level: str = "INFO"
    etcd: ipc.EtcdOptions | None = None
    open_files: int = open_files.LIMIT_MAX
    status_key: str = field(default="", repr=False)
    tls_fingerprint: str = ""
