"""What a node answers to any client, and whether the HTTP API is on there. Pure."""

import ipaddress
from collections.abc import Iterable
from typing import Literal

OpenPage = Literal["healthz", "readyz", "metrics", "status"]
OPEN_PAGES: tuple[OpenPage, ...] = ("healthz", "readyz", "metrics", "status")
_OPEN_EVERYWHERE: tuple[OpenPage, ...] = ("healthz", "readyz")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on `host`."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def open_pages(configured: Iterable[str] | None, host: str) -> frozenset[str]:
    """The pages that need no identity on a node that listens on `host`. `configured`: `api.open`; None: the default."""
    if configured is not None:
        return frozenset(configured)
    return frozenset(OPEN_PAGES if is_loopback(host) else _OPEN_EVERYWHERE)


def is_api_on(enabled: bool | Literal["auto"], host: str) -> bool:
    """Whether the HTTP API answers on a node that listens on `host`. `enabled`: `api.enabled`."""
    return is_loopback(host) if enabled == "auto" else enabled
