"""Sign-in with Discord: OAuth2, authorization code with PKCE (RFC 6749, RFC 7636; Discord: OAuth2).

Two or three requests by aiohttp. Authlib would bring its own HTTP client (httpx, or requests) for them: it has none for
aiohttp, and neither would go through `discord.proxy` with our rules for redirects.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlencode, urlsplit

import aiohttp
import msgspec

from sandwich_coordinator.discord_api import DiscordUnavailable, user_agent
from sandwich_coordinator.network_errors import network_words

TIMEOUT_S = 10.0
BODY_BYTES_MAX = 256 * 1024
_T = TypeVar("_T")


class SignInRefused(Exception):
    """Discord does not confirm this sign-in: the code is old or was used, or the user did not agree."""


@dataclass(frozen=True, slots=True)
class LoginApp:
    """The OAuth2 application. `redirect_uri` is registered at Discord, character by character."""

    api_url: str
    client_id: str
    client_secret: str = field(repr=False)
    redirect_uri: str
    with_guilds: bool


class LoginUser(msgspec.Struct, frozen=True):
    """`GET /users/@me` of the user who signs in."""

    id: str
    username: str


class _Token(msgspec.Struct):
    access_token: str
    token_type: str


class _Member(msgspec.Struct):
    roles: list[str]


def code_challenge(verifier: str) -> str:
    """The challenge of a PKCE verifier, method S256."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def authorize_url(app: LoginApp, state: str, verifier: str) -> str:
    """Where the user's browser goes. At Discord that is https://discord.com/oauth2/authorize."""
    parts = urlsplit(app.api_url)
    query = {
        "response_type": "code",
        "client_id": app.client_id,
        "redirect_uri": app.redirect_uri,
        "scope": "identify guilds.members.read" if app.with_guilds else "identify",
        "state": state,
        "code_challenge": code_challenge(verifier),
        "code_challenge_method": "S256",
        "prompt": "none",
    }
    return f"{parts.scheme}://{parts.netloc}/oauth2/authorize?{urlencode(query)}"


async def exchange_code(http: aiohttp.ClientSession, app: LoginApp, code: str, verifier: str) -> str:
    """The access token for a code. Raises SignInRefused, DiscordUnavailable."""
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": app.redirect_uri,
        "client_id": app.client_id,
        "client_secret": app.client_secret,
        "code_verifier": verifier,
    }
    token = await _ask(http, "POST", f"{app.api_url.rstrip('/')}/oauth2/token", _Token, form=form)
    if token is None or token.token_type != "Bearer":
        raise SignInRefused("Discord does not confirm this sign-in: begin again")
    return token.access_token


async def fetch_login_user(http: aiohttp.ClientSession, api_url: str, access_token: str) -> LoginUser:
    """Who signed in. Raises SignInRefused, DiscordUnavailable."""
    user = await _ask(http, "GET", f"{api_url.rstrip('/')}/users/@me", LoginUser, access_token=access_token)
    if user is None:
        raise SignInRefused("Discord does not say who signed in: begin again")
    return user


async def fetch_member_roles(http: aiohttp.ClientSession, api_url: str, access_token: str, guild: str) -> list[str]:
    """The user's roles in a guild; none when the user is not a member. Raises DiscordUnavailable."""
    url = f"{api_url.rstrip('/')}/users/@me/guilds/{guild}/member"
    member = await _ask(http, "GET", url, _Member, access_token=access_token)
    return member.roles if member is not None else []


async def _ask(
    http: aiohttp.ClientSession,
    method: str,
    url: str,
    kind: type[_T],
    *,
    form: Mapping[str, str] | None = None,
    access_token: str = "",
) -> _T | None:
    """The decoded answer; None for a refusal (400 to 404). No error has a text of Discord's or a secret."""
    headers = {"User-Agent": user_agent()}
    if access_token:
        headers["Authorization"] = f"Bearer {access_token}"
    try:
        async with http.request(
            method,
            url,
            data=form,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            allow_redirects=False,
        ) as response:
            if 400 <= response.status <= 404:
                return None
            if response.status != 200:
                raise DiscordUnavailable(f"Discord answered {response.status} to a sign-in")
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > BODY_BYTES_MAX:
                    raise DiscordUnavailable("Discord's answer to a sign-in is too large")
    except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as error:
        raise DiscordUnavailable(f"Discord could not be asked: {network_words(error)}") from None
    try:
        return msgspec.json.decode(bytes(body), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise DiscordUnavailable("Discord's answer to a sign-in is not the documented one") from None
