"""HOST:PORT as text, built and parsed only here, so that IPv6 addresses always have brackets. Pure."""

import re
from typing import NamedTuple
from urllib.parse import urlsplit

PORT_MAX = 65535
_BARE_IPV6 = re.compile(r"[0-9a-f]*(:[0-9a-f.]*){2,}", re.IGNORECASE)
_HOST = re.compile(r"[^\s\[\]/@:%?#]+")


class Address(NamedTuple):
    """A host (a name, or an IP address without brackets) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_address(text: str, *, any_port: bool = False) -> Address:
    """Read HOST:PORT or [IPV6]:PORT. Raises ValueError with the reason. `any_port`: allow port 0."""
    host, colon, port = text.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    if "%" in host:
        raise ValueError(_ZONE)
    if (not bracketed and _BARE_IPV6.fullmatch(text.strip())) or (bracketed and not _BARE_IPV6.fullmatch(host)):
        raise ValueError("write an IPv6 address as [ADDRESS]:PORT, such as [::1]:5469")
    if not bracketed and not _HOST.fullmatch(host):
        raise ValueError("write it as HOST:PORT")
    if not colon or not (port.isascii() and port.isdecimal()) or int(port) > PORT_MAX:
        raise ValueError(f"the port is a number up to {PORT_MAX}: write it as HOST:PORT")
    if int(port) == 0 and not any_port:
        raise ValueError("port 0 is not a port that others can reach")
    return Address(host, int(port))


_ZONE = "an IPv6 address with a zone (fe80::1%eth0) means something on one machine only: use one that all can reach"


def check_url_host(url: str) -> None:
    """Raise ValueError for a URL whose host is an IPv6 address without brackets or with a zone."""
    place = url.partition("://")[2].partition("/")[0].rpartition("@")[2]
    if "%" in place and ":" in place.partition("%")[0]:
        raise ValueError(_ZONE)
    if _BARE_IPV6.fullmatch(place):
        raise ValueError("write an IPv6 address in brackets, such as http://[::1]:2379")


def http_url(address: str) -> str:
    """`http://HOST:PORT` of a node's registered address; one from an older version may have no brackets."""
    if "://" in address:
        return address.rstrip("/")
    host, _, port = address.rpartition(":")
    bare = ":" in host and not host.startswith("[")
    return f"http://[{host}]:{port}" if bare else f"http://{address}"


def node_url(address: str, tls: str) -> str:
    """The URL of a node; `tls`: the fingerprint of its certificate, "" for plain HTTP."""
    url = http_url(address)
    return url.replace("http://", "https://", 1) if tls else url


def parse_advertised(text: str) -> str:
    """What a node registers for `--advertise`: HOST:PORT, or an http(s) URL. Raises ValueError."""
    if "://" not in text:
        return str(parse_address(text))
    check_url_host(text)
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0 or parts.query or parts.username:
        raise ValueError("write it as HOST:PORT, or as http[s]://HOST:PORT")
    return text.rstrip("/")
