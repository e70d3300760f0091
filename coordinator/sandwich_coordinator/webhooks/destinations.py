"""Where a webhook may send to: its URL, and each address that the URL's host has. Pure.

A node often reaches what the person who sets up a webhook does not: a cloud's metadata service, etcd, other machines of
the private network. So addresses that are not public are refused, unless the webhook says `allow_private`; link-local
addresses are refused in any case.
"""

import re
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from sandwich_coordinator.webhooks.records import HookType

URL_CHARACTERS_MAX = 2000
_DISCORD = re.compile(
    r"https://(?:(?:canary|ptb)\.)?discord(?:app)?\.com/api(?:/v[0-9]{1,2})?/webhooks/[0-9]{15,20}/[\w-]{60,80}"
)
_NEVER = frozenset({IPv6Address("fd00:ec2::254")})
"""A metadata service of a cloud; 169.254.169.254 and fe80::a9fe:a9fe are link-local."""
_NAT64 = IPv6Network("64:ff9b::/96")
_LOCAL_NAMES = re.compile(r"(?:^|\.)(?:localhost|localdomain|local|internal)\.?$", re.IGNORECASE)
_CONTROL = re.compile(r"[\s\x00-\x1f\x7f]")


def check_url(url: str, kind: HookType, *, allow_private: bool) -> str:
    """The URL. Raises ValueError that never repeats it: it is a secret."""
    if len(url) > URL_CHARACTERS_MAX or _CONTROL.search(url):
        raise ValueError("the URL is too long or has spaces in it")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("the URL cannot be read") from None
    if not host or parts.username is not None or parts.password is not None:
        raise ValueError("the URL needs a host, and no user or password before it")
    if parts.scheme != "https" and not (parts.scheme == "http" and allow_private):
        raise ValueError("the URL must begin with https:// (http:// only with allow_private)")
    if kind == "discord" and not allow_private and _DISCORD.fullmatch(url) is None:
        raise ValueError("this is no webhook URL of Discord: https://discord.com/api/webhooks/ID/TOKEN")
    if parts.fragment:
        raise ValueError("the URL has a fragment (#...), which is never sent")
    if refusal := host_refusal(host, allow_private=allow_private):
        raise ValueError(refusal)
    return url


def shown_url(url: str) -> tuple[str, str]:
    """What may be shown of a URL: its host, and its last four characters."""
    return urlsplit(url).hostname or "", url[-4:]


def host_refusal(host: str, *, allow_private: bool) -> str:
    """Why nothing is sent to this host by its name; "" when it may be, or when its addresses decide."""
    try:
        ip_address(host)
    except ValueError:
        if ":" in host or host.replace(".", "").isdigit():
            # aiohttp takes 127.1 for an address and asks no resolver, which the system then reads as 127.0.0.1.
            return f"{host[:100]} is not how an IP address is written"
        if _LOCAL_NAMES.search(host) and not allow_private:
            return f"{host[:100]} is a name of this machine or network: say allow_private if that is wanted"
        return ""
    return address_refusal(host, allow_private=allow_private)


def address_refusal(address: str, *, allow_private: bool) -> str:
    """Why nothing is sent to this IP address; "" when it may be. Raises ValueError for no address."""
    found = _innermost(ip_address(address.partition("%")[0]))
    if found.is_link_local or found.is_multicast or found.is_unspecified or found in _NEVER or _is_reserved(found):
        return f"{found} is no address that a webhook may send to"
    if allow_private or _is_public(found):
        return ""
    return f"{found} is an address of a private network: say allow_private if that is wanted"


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    return address.is_global and not (isinstance(address, IPv6Address) and address.is_site_local)


def _is_reserved(address: IPv4Address | IPv6Address) -> bool:
    """Of IPv6, `ipaddress` counts addresses in use among the reserved ones, ::1 among them."""
    return address.version == 4 and address.is_reserved


def _innermost(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv6 one represents, if it does (RFC 4291, 3056, 4380, 6052)."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64 or (int(address) >> 32 == 0 and int(address) > 1):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address
