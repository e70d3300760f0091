"""How a process of a node reaches NATS."""

import msgspec


class NatsOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Servers and credentials. The paths are files on this machine."""

    servers: tuple[str, ...]
    user: str | None = None
    password: str | None = None
    credentials: str | None = None
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None

    def __repr__(self) -> str:
        return f"NatsOptions(servers={len(self.servers)})"
