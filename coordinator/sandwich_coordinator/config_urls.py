"""URLs of cluster.yml. They must contain no secret, because they are stored, exported and logged unchanged.

No message repeats the URL, which may contain a secret by mistake. Pure.
"""

from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

from pydantic import AfterValidator

from sandwich_coordinator.addresses import check_url_host

URL_CHARACTERS_MAX = 2048


def server_url(schemes: tuple[str, ...], *, secrets: str, login: bool = False, options: tuple[str, ...] = ()) -> Any:
    """A check of a URL. `secrets`: text that says where its secret belongs instead.

    `login`: the URL may contain user and password (the caller removes the password). `options`: allowed after `?`.
    """

    def check(value: str) -> str:
        parts = _split(value, schemes)
        if "@" in parts.netloc and not login:
            raise ValueError(f"must not contain a user, a password or a token: {secrets}")
        given = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)] if parts.query else []
        if parts.fragment or (parts.query and not given) or not set(given) <= set(options):
            allowed = f" but {', '.join(options)}" if options else ""
            raise ValueError(f"must not contain anything after ? or #{allowed}: {secrets}")
        return value

    return AfterValidator(check)


def check_database(url: str) -> None:
    """Raise ValueError unless the database in a Redis URL, if there is any, is a number: redis://HOST/0, ?db=0."""
    parts = urlsplit(url)
    databases = [value for _, value in parse_qsl(parts.query, keep_blank_values=True)]
    if parts.scheme != "unix":
        databases.append(parts.path.strip("/"))
    if not all(text.isascii() and (text.isdecimal() or not text) for text in databases):
        raise ValueError("has a database that is not a number: write it as redis://HOST:PORT/0")


def _split(value: str, schemes: tuple[str, ...]) -> SplitResult:
    starts = " or ".join(f"{scheme}://" for scheme in schemes)
    if len(value) > URL_CHARACTERS_MAX:
        raise ValueError(f"is longer than {URL_CHARACTERS_MAX} characters")
    # urlsplit would drop some of these silently.
    if not value.isprintable() or " " in value or "\\" in value:
        raise ValueError("must not contain spaces, line breaks, control characters or backslashes")
    scheme, colon, _ = value.partition("://")
    if not colon or scheme.lower() not in schemes:
        raise ValueError(f"must be a URL that starts with {starts}")
    check_url_host(value)
    try:
        parts = urlsplit(value)
        host = parts.hostname
    except ValueError:
        raise ValueError("has no host that can be read: write an IPv6 address in brackets, as in [::1]:4222") from None
    if parts.scheme == "unix":
        if not parts.path:
            raise ValueError("names no socket: write it as unix:///path/of/socket")
        return parts
    if "," in parts.netloc:
        raise ValueError("names several servers: write one URL for each")
    _check_port(parts.netloc.rpartition("@")[2])
    if not host:
        raise ValueError(f"names no host: write it as {parts.scheme}://HOST:PORT")
    return parts


def _check_port(address: str) -> None:
    text = address.rpartition("]")[2].partition(":")[2]
    if ":" in text:
        raise ValueError("has several ports or an IPv6 address without brackets: write that as [::1]:4222")
    if text and not (text.isascii() and text.isdecimal()):
        raise ValueError("has a port that is not a number: is a character of a password not %-encoded?")
    if text and not (len(text) <= 5 and 0 < int(text) < 65536):
        raise ValueError(f"has the port {text[:12]}: ports are 1 to 65535")
