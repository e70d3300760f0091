"""Sends one message of a webhook. The addresses of its host are checked, and only a checked address is connected to."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from sandwich_coordinator.network_errors import network_words
from sandwich_coordinator.webhooks.destinations import address_refusal, host_refusal
from sandwich_coordinator.webhooks.messages import SIGNATURE_HEADER, TIMESTAMP_HEADER, signature

TIMEOUT_S = 10.0
ANSWER_BYTES_MAX = 64 * 1024
RETRY_AFTER_MAX_S = 3600.0

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""The IP addresses of a host. Raises OSError."""


class NotDelivered(Exception):
    """The message did not arrive; the text says why and contains no part of the URL. `retry_after_s`: 0: not said."""

    def __init__(self, reason: str, retry_after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """Where and how: sealed as one value. `secret`: for the signature; "": there is none."""

    url: str
    secret: str = ""
    allow_private: bool = False

    def __repr__(self) -> str:
        return "Destination()"


@dataclass(frozen=True, slots=True)
class Message:
    """A body and when it was made (Unix seconds)."""

    body: bytes = field(repr=False)
    at: int


class _Refused(OSError):
    """An address may not be connected to."""


class _CheckedResolver(AbstractResolver):
    """Gives aiohttp the addresses of a host once all of them were checked; fails where one may not be connected to."""

    def __init__(self, resolve: Resolve, *, allow_private: bool) -> None:
        self._resolve = resolve
        self._allow_private = allow_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """All addresses of `host`. Raises OSError."""
        found = await self._resolve(host, port)
        for address in found:
            if refusal := address_refusal(address, allow_private=self._allow_private):
                raise _Refused(refusal)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in found
        ]

    async def close(self) -> None:
        """Nothing is open."""


async def system_addresses(host: str, port: int) -> list[str]:
    """What the running loop resolves. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


async def deliver(destination: Destination, message: Message, *, resolve: Resolve = system_addresses) -> None:
    """Send one message, once. A redirect is not followed. Raises NotDelivered."""
    url = URL(destination.url, encoded=True)
    # aiohttp does not ask a resolver about a host that is an address.
    if refusal := host_refusal(url.host or "", allow_private=destination.allow_private):
        raise NotDelivered(refusal)
    headers = {"Content-Type": "application/json", "User-Agent": "Sandwich-Webhook"}
    if destination.secret:
        headers[TIMESTAMP_HEADER] = str(message.at)
        headers[SIGNATURE_HEADER] = signature(destination.secret, message.at, message.body)
    resolver = _CheckedResolver(resolve, allow_private=destination.allow_private)
    # A connection of its own for each message: none outlives the check of its address.
    connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, force_close=True)
    try:
        async with (
            asyncio.timeout(TIMEOUT_S),
            aiohttp.ClientSession(connector=connector, trust_env=False) as http,
            http.post(url, data=message.body, headers=headers, allow_redirects=False) as response,
        ):
            answer = await response.content.read(ANSWER_BYTES_MAX)
    except TimeoutError:
        raise NotDelivered(f"no answer in {TIMEOUT_S:g} s") from None
    except (aiohttp.ClientError, OSError) as error:
        refused = _refusal_in(error)
        raise NotDelivered(refused or network_words(error)) from None
    except ValueError:
        raise NotDelivered("the answer cannot be read") from None
    if response.status >= 300:
        raise NotDelivered(_words(response.status), _retry_after_s(response, answer))


def _refusal_in(error: BaseException | None) -> str:
    """Our own refusal, which aiohttp wraps."""
    while error is not None:
        if isinstance(error, _Refused):
            return str(error)
        error = error.__cause__ or error.__context__
    return ""


def _words(status: int) -> str:
    if status < 400:
        return f"it answers with a redirect (HTTP {status}), which is not followed"
    meant = {
        401: "it does not know the URL",
        403: "it refuses",
        404: "there is no such webhook",
        429: "too many messages",
    }
    return f"HTTP {status}: {meant[status]}" if status in meant else f"HTTP {status}"


def _retry_after_s(response: aiohttp.ClientResponse, answer: bytes) -> float:
    """Seconds, from the header or from Discord's body; 0: not said."""
    said = response.headers.get("Retry-After", "")
    try:
        seconds = float(said) if said else float(msgspec.json.decode(answer)["retry_after"])
    except (ValueError, TypeError, KeyError, msgspec.MsgspecError):
        return 0.0
    return min(max(seconds, 0.0), RETRY_AFTER_MAX_S) if seconds == seconds else 0.0
