"""Which gateway addresses may receive a token. Pure.

A writer to etcd without the cluster key must not be able to redirect a token (`trust`). Of the addresses that nodes
write themselves (the gateway's in `budget/`, the resume URL in `sessions/`), nodes connect only to Discord's own hosts
and to the host of `discord.api_url`. Apart from `trust`, so that workers do not import the configuration's models.
"""

import re
from urllib.parse import urlsplit

DISCORD_HOSTS = ("discord.com", "discord.gg")
"""Discord's REST API and its gateway; their subdomains belong to Discord, too."""
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_HOST = re.compile(r"[a-z0-9_.-]+|[0-9a-f:.]+")


def gateway_refusal(url: str, api_url: str) -> str:
    """Why no token may be sent to the gateway at `url`; "" when it may. `api_url` is the authenticated one."""
    try:
        parts, api = urlsplit(url), urlsplit(api_url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return "the gateway's address is not a URL"
    if parts.scheme not in ("ws", "wss") or not _HOST.fullmatch(host) or "@" in parts.netloc:
        return "the gateway's address is not a websocket URL with a host"
    if _is_discord(host):
        return "" if parts.scheme == "wss" else f"the gateway's address at {host} is not encrypted"
    if host != api.hostname and not {host, api.hostname} <= _LOOPBACK:
        return (
            f"the gateway's address names the host {host[:100]}, which is neither Discord's nor that of "
            f"discord.api_url ({api.hostname}): no token is sent there"
        )
    if parts.scheme == "ws" and api.scheme != "http":
        return f"the gateway's address at {host} is not encrypted and discord.api_url is"
    return ""


def _is_discord(host: str) -> bool:
    return any(host == known or host.endswith(f".{known}") for known in DISCORD_HOSTS)
