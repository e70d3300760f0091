"""Which nodes advertise an address that other hosts cannot reach. Pure."""

from ipaddress import ip_address
from urllib.parse import urlsplit

from sandwich_coordinator.addresses import http_url
from sandwich_coordinator.types import NodeRecord
from sandwich_coordinator.view import ClusterView


def is_local(address: str) -> bool:
    """Whether an advertised address means the own host only: loopback, or the unspecified address."""
    try:
        host = urlsplit(http_url(address)).hostname or ""
        if host == "localhost":
            return True
        ip = ip_address(host)
    except ValueError:
        return False
    return ip.is_loopback or ip.is_unspecified


def locally_advertised(view: ClusterView) -> list[str]:
    """The nodes that advertise such an address while another node runs on another host."""
    hosts = {name: host_of(entry.record) for name, entry in view.nodes.items()}
    several = len({host for host in hosts.values() if host}) > 1
    return [name for name in sorted(hosts) if several and hosts[name] and is_local(view.nodes[name].record.address)]


def host_of(record: NodeRecord) -> str:
    """Host name and boot of the machine; "" where an older node does not report it.

    Containers that share the host's network share its name; a process id namespace does not matter here.
    """
    return "/".join(record.labels.get("host", "").split("/")[:2])
