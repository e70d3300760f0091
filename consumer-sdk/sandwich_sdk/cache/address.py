"""The address of Redis and the login. Pure: it parses a URL and does not connect."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

_SCHEMES: Final = ("redis", "rediss", "unix")
_PORT: Final = 6379


@dataclass(frozen=True, slots=True)
class Tls:
    """For rediss:// URLs. `ca`: trusted instead of the system's certificates; `cert` and `key`: the client's."""

    ca: str | Path | None = None
    cert: str | Path | None = None
    key: str | Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A server and a login. `server` may be shown to users; `path` is the path of a unix socket, else ""."""

    server: str
    host: str
    port: int
    path: str
    db: int
    is_tls: bool
    username: str | None = field(repr=False)
    password: str | None = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """Raises ValueError. Its message never contains the URL, which may contain a password."""
        try:
            parts = urlsplit(url)
            port, host = parts.port or _PORT, parts.hostname or ""
        except ValueError:
            raise ValueError("the Redis URL cannot be read: is a character of the password not %-encoded?") from None
        if parts.scheme not in _SCHEMES:
            raise ValueError("a Redis URL starts with redis:// or rediss:// or unix://")
        is_unix = parts.scheme == "unix"
        if not (parts.path if is_unix else host):
            raise ValueError("the Redis URL names no server")
        return cls(
            server=parts.path if is_unix else f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
            host=host,
            port=port,
            path=parts.path if is_unix else "",
            db=_db(parts),
            is_tls=parts.scheme == "rediss",
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
        )

    def arguments(self) -> dict[str, Any]:
        """The server as redis-py's arguments."""
        return {"path": self.path} if self.path else {"host": self.host, "port": self.port}


def tls_arguments(tls: Tls) -> dict[str, Any]:
    """As redis-py's arguments; the server's certificate must match the host of the URL. Raises ValueError."""
    paths = {"ssl_ca_certs": tls.ca, "ssl_certfile": tls.cert, "ssl_keyfile": tls.key}
    given = {name: str(path) for name, path in paths.items() if path is not None}
    for path in given.values():
        if not Path(path).is_file():
            raise ValueError(f"the file {path} for TLS does not exist")
    return {"ssl_cert_reqs": "required", "ssl_check_hostname": True, **given}


def _db(parts: SplitResult) -> int:
    """The number of the database: redis://host/1, unix:///path?db=1."""
    options = parse_qs(parts.query, keep_blank_values=True)
    text = options.pop("db", [""])[0]
    if parts.scheme != "unix":
        text = text or parts.path.strip("/")
    if options:
        raise ValueError("a Redis URL takes no options but ?db=NUMBER: give timeouts and certificates as arguments")
    if not (text.isascii() and (text.isdecimal() or not text)):
        raise ValueError("the database in a Redis URL is a number, as in redis://host/0")
    return int(text or 0)
