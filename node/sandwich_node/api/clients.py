"""From which address a request comes, and whether it came over https: behind reverse proxies, too. Pure.

`X-Forwarded-For` and `X-Forwarded-Proto` count only from the proxies in `api.trusted_proxies`: any client can send
them.
"""

import ipaddress
from collections.abc import Sequence
from functools import lru_cache

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
_IPV6_PREFIX = 64
"""A client has at least so many addresses of IPv6."""
HOPS_MAX = 16


def client_address(peer: str, forwarded_for: Sequence[str], trusted: Sequence[str]) -> str:
    """The client's address: the peer, or what the trusted proxies before it say. "" when it cannot be read."""
    found = _address(peer)
    if found is None:
        return ""
    hops = [part.strip() for header in forwarded_for for part in header.split(",")]
    for hop in reversed(hops[-HOPS_MAX:]):
        if not _is_trusted(found, trusted):
            break
        before = _address(hop)
        if before is None:
            break
        found = before
    return str(found)


def is_https(scheme: str, peer: str, forwarded_proto: str, trusted: Sequence[str]) -> bool:
    """Whether the client used https. `scheme`: of the connection; `forwarded_proto`: the header of a proxy."""
    found = _address(peer)
    if forwarded_proto and found is not None and _is_trusted(found, trusted):
        return forwarded_proto.rpartition(",")[2].strip().lower() == "https"
    return scheme == "https"


def network_of(address: str) -> str:
    """What is limited as one client: an address, of IPv6 its /64."""
    found = _address(address)
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((found, _IPV6_PREFIX), strict=False))
    return str(found or "")


def _address(text: str) -> IPAddress | None:
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def _is_trusted(address: IPAddress, trusted: Sequence[str]) -> bool:
    return any(address in network for network in _networks(tuple(trusted)))


@lru_cache(maxsize=8)
def _networks(trusted: tuple[str, ...]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(map(ipaddress.ip_network, trusted))
