"""The control plane's requests to Discord's REST API: how to connect, and the bot of a token."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec

from sandwich_coordinator.network_errors import network_words

_BODY_BYTES_MAX = 256 * 1024
AVATAR_TIMEOUT_S = 2.0
_AVATAR_BYTES_MAX = 64 * 1024
_AVATAR = re.compile(r"(a_)?[0-9a-f]{32}")
_PNG = b"\x89PNG\r\n\x1a\n"
_Body = TypeVar("_Body")


class DiscordApiError(Exception):
    """Base of the errors; no message contains a token."""


class TokenRefused(DiscordApiError):
    """Discord answered 401: the token is wrong or was reset. A retry does not help."""


class RateLimited(DiscordApiError):
    """Discord answered 429: retry after `retry_after_s` seconds."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"rate limited by Discord for {retry_after_s:g} s")
        self.retry_after_s = retry_after_s


class DiscordUnavailable(DiscordApiError):
    """No usable answer: not reachable, too slow, a server error, or an undocumented body."""


@dataclass(frozen=True, slots=True)
class GatewayBot:
    """`GET /gateway/bot`: where to connect, the recommended shard count, and the session starts that are left."""

    url: str
    shards: int
    total: int
    remaining: int
    reset_after_s: float
    max_concurrency: int


@dataclass(frozen=True, slots=True)
class CurrentUser:
    """`GET /users/@me`: the bot's user. Its id is also the application's, except for some bots created until 2016.

    avatar  the hash of its picture; "" for none
    """

    id: str
    name: str
    avatar: str = ""


_INTENT_FLAGS = {
    "GUILD_PRESENCES": 1 << 12 | 1 << 13,
    "GUILD_MEMBERS": 1 << 14 | 1 << 15,
    "MESSAGE_CONTENT": 1 << 18 | 1 << 19,
}
"""Flags of an application that show an enabled privileged intent, the second for bots in under 100 guilds (Discord:
Application Flags)."""


@dataclass(frozen=True, slots=True)
class Application:
    """`GET /applications/@me`. `granted`: enabled privileged intents; `guilds`: about how many, None: not known."""

    id: str
    granted: frozenset[str]
    guilds: int | None


class _Limit(msgspec.Struct):
    total: int
    remaining: int
    reset_after: float
    max_concurrency: int = 1


class _GatewayBody(msgspec.Struct):
    url: str
    shards: int
    session_start_limit: _Limit


class _UserBody(msgspec.Struct):
    id: str
    username: str
    avatar: str | None = None


class _ApplicationBody(msgspec.Struct):
    id: str
    flags: int = 0
    approximate_guild_count: int | None = None


class _LimitedBody(msgspec.Struct):
    retry_after: float


def user_agent() -> str:
    """The User-Agent that Discord requires of bots."""
    try:
        version = metadata.version("sandwich")
    except metadata.PackageNotFoundError:
        version = "0"
    return f"DiscordBot (sandwich, {version})"


async def fetch_gateway_bot(http: aiohttp.ClientSession, api_url: str, token: str, timeout_s: float = 10) -> GatewayBot:
    """Request how to connect. `api_url` includes the version. Raises TokenRefused, RateLimited, DiscordUnavailable."""
    body = await _get(http, f"{api_url.rstrip('/')}/gateway/bot", token, _GatewayBody, timeout_s)
    limit = body.session_start_limit
    if body.shards < 1 or limit.max_concurrency < 1 or not _is_gateway(body.url):
        raise DiscordUnavailable("Discord's answer to /gateway/bot is not valid")
    reset_after_s = max(0.0, limit.reset_after / 1000)
    return GatewayBot(body.url, body.shards, limit.total, limit.remaining, reset_after_s, limit.max_concurrency)


async def fetch_current_user(
    http: aiohttp.ClientSession, api_url: str, token: str, timeout_s: float = 10
) -> CurrentUser:
    """Request the bot user of the token. Raises TokenRefused, RateLimited, DiscordUnavailable."""
    body = await _get(http, f"{api_url.rstrip('/')}/users/@me", token, _UserBody, timeout_s)
    return CurrentUser(body.id, body.username, body.avatar or "")


def avatar_url(api_url: str, user: CurrentUser) -> str:
    """Where a user's picture is; "" when there is none. Where `api_url` is not Discord's, its host has the pictures.

    Discord, Image Formatting: `https://cdn.discordapp.com/avatars/<user>/<hash>.png`.
    """
    if not (_AVATAR.fullmatch(user.avatar) and user.id.isascii() and user.id.isdigit()):
        return ""
    api = urlsplit(api_url)
    is_discord = api.hostname == "discord.com" or (api.hostname or "").endswith(".discord.com")
    origin = "https://cdn.discordapp.com" if is_discord else f"{api.scheme}://{api.netloc.rpartition('@')[2]}"
    return f"{origin}/avatars/{user.id}/{user.avatar}.png?size=128"


async def fetch_avatar(
    http: aiohttp.ClientSession, api_url: str, user: CurrentUser, timeout_s: float = AVATAR_TIMEOUT_S
) -> bytes:
    """A user's picture as PNG, at most 64 KiB; nothing when none can be had: it is no reason to refuse a token.

    No token is sent.
    """
    url, found = avatar_url(api_url, user), bytearray()
    if not url:
        return b""
    try:
        async with http.get(
            url,
            headers={"User-Agent": user_agent()},
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            allow_redirects=False,
        ) as response:
            while response.status == 200 and (more := await response.content.read(_AVATAR_BYTES_MAX + 1)):
                found += more
                if len(found) > _AVATAR_BYTES_MAX:
                    return b""
    except (aiohttp.ClientError, OSError, ValueError):
        return b""
    return bytes(found) if found.startswith(_PNG) else b""


async def fetch_application(
    http: aiohttp.ClientSession, api_url: str, token: str, timeout_s: float = 10
) -> Application:
    """Request the application of the token. Raises TokenRefused, RateLimited, DiscordUnavailable."""
    body = await _get(http, f"{api_url.rstrip('/')}/applications/@me", token, _ApplicationBody, timeout_s)
    granted = frozenset(name for name, flags in _INTENT_FLAGS.items() if body.flags & flags)
    return Application(body.id, granted, body.approximate_guild_count)


def _is_gateway(url: str) -> bool:
    """Whether a shard can connect to it. Otherwise it must not replace an address that may be right."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of Discord with any status; of an error's body only the beginning."""

    status: int
    headers: Mapping[str, str]
    content: bytes


async def get(
    http: aiohttp.ClientSession, url: str, token: str, *, timeout_s: float, body_bytes_max: int = _BODY_BYTES_MAX
) -> Reply:
    """One GET with the token. Raises DiscordUnavailable, which contains neither token nor headers."""
    path = url.rsplit("/v", 1)[-1]
    headers = {"Authorization": f"Bot {token.removeprefix('Bot ').strip()}", "User-Agent": user_agent()}
    try:
        # A redirect would send the token to another host.
        async with http.get(
            url, headers=headers, timeout=aiohttp.ClientTimeout(total=timeout_s), allow_redirects=False
        ) as response:
            status, content = response.status, bytearray(await response.content.read(_BODY_BYTES_MAX))
            while status < 400 and (more := await response.content.read(_BODY_BYTES_MAX)):
                content += more
                if len(content) > body_bytes_max:
                    raise DiscordUnavailable(f"Discord's answer to {path} is too large")
            return Reply(status, response.headers, bytes(content))
    except (aiohttp.ClientError, OSError, ValueError) as error:
        # Not the error's text: it may quote headers, and an invalid header may contain the token.
        raise DiscordUnavailable(f"Discord could not be asked for {path}: {network_words(error)}") from None


async def _get(http: aiohttp.ClientSession, url: str, token: str, body: type[_Body], timeout_s: float) -> _Body:
    path = url.rsplit("/v", 1)[-1]
    reply = await get(http, url, token, timeout_s=timeout_s)
    if reply.status == 401:
        raise TokenRefused("Discord refused the token (401): it is wrong or was reset")
    if reply.status == 429:
        raise RateLimited(retry_after_s(reply))
    if reply.status != 200:
        raise DiscordUnavailable(f"Discord answered {reply.status} to {path}")
    try:
        return msgspec.json.decode(reply.content, type=body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise DiscordUnavailable(f"Discord's answer to {path} is not the documented one") from None


def retry_after_s(reply: Reply) -> float:
    """Seconds to wait: from the body, else the header (a ban by Discord's proxy has no JSON), else a minute."""
    try:
        found = msgspec.json.decode(reply.content, type=_LimitedBody).retry_after
    except (msgspec.DecodeError, UnicodeDecodeError):
        try:
            found = float(reply.headers.get("Retry-After", ""))
        except ValueError:
            found = 60.0
    return found if 0 <= found < float("inf") else 60.0
