"""The connection options for Redis."""

from urllib.parse import urlsplit

import msgspec

TIMEOUT_S = 1.0


class RedisOptions(msgspec.Struct, frozen=True, kw_only=True):
    """A redis://, rediss:// or unix:// URL that may name a user; and a password. `ca`, `cert`, `key`: paths."""

    url: str
    password: str | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    timeout_s: float = TIMEOUT_S

    def __repr__(self) -> str:
        return f"RedisOptions({urlsplit(self.url).hostname or 'socket'})"
