"""Sign-in with Discord: OAuth2's authorization code grant with PKCE, as strict as Discord (Discord: OAuth2).

The authorize page agrees at once, as the user that was set: a browser in a test has no one to click. A bot's
application is the OAuth2 client: its id is the client id.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import msgspec
from aiohttp import web

from .clock import Now
from .entities import Json
from .gateway import Bot, Gateway

CODE_S = 600.0
TOKEN_S = 604_800.0
SCOPES = frozenset({"identify", "guilds.members.read"})


@dataclass
class LoginClient:
    """What is registered for an application. `user`: who agrees next; "": that user declines."""

    secret: str = field(repr=False)
    redirect_uris: list[str]
    user: str


@dataclass(frozen=True)
class _Grant:
    client: str
    user: str
    scopes: frozenset[str]
    ends_at: float
    redirect_uri: str = ""
    challenge: str = ""


class OAuth2:
    """The endpoints, and the codes and tokens that were given."""

    def __init__(self, gateway: Gateway, clock: Callable[[], Now]) -> None:
        self._gateway = gateway
        self._clock = clock
        self.clients: dict[str, LoginClient] = {}
        self._codes: dict[str, _Grant] = {}
        self._tokens: dict[str, _Grant] = {}

    def add_to(self, app: web.Application) -> None:
        """Registers the routes."""
        app.router.add_get("/oauth2/authorize", self._authorize)
        for version in ("", "/v10", "/v9"):
            app.router.add_post(f"/api{version}/oauth2/token", self._exchange)
        for version in ("v10", "v9"):
            app.router.add_get(f"/api/{version}/users/@me/guilds/{{guild}}/member", self._member)

    def is_of_user(self, request: web.Request) -> bool:
        """Whether a request has a user's access token instead of a bot's."""
        return request.headers.get("Authorization", "").startswith("Bearer ")

    async def me(self, request: web.Request) -> web.Response:
        """`GET /users/@me` with an access token."""
        grant = self._grant(request)
        if grant is None or "identify" not in grant.scopes:
            return _json({"message": "401: Unauthorized", "code": 0}, 401)
        return _json({"id": grant.user, "username": f"user-{grant.user}", "discriminator": "0", "avatar": None})

    async def _authorize(self, request: web.Request) -> web.Response:
        query = request.query
        client = self.clients.get(query.get("client_id", ""))
        # What is wrong here is shown to the user and never sent back: the address may be a stranger's.
        if client is None or query.get("redirect_uri", "") not in client.redirect_uris:
            return web.Response(status=400, text="Invalid OAuth2 redirect_uri or client\n")
        scopes = frozenset(query.get("scope", "").split())
        back = {"state": query["state"]} if "state" in query else {}
        error = ""
        if query.get("response_type") != "code":
            error = "unsupported_response_type"
        elif not scopes or not scopes <= SCOPES:
            error = "invalid_scope"
        elif "code_challenge" in query and query.get("code_challenge_method") != "S256":
            error = "invalid_request"
        elif not client.user:
            error = "access_denied"
        if error:
            return _redirect(query["redirect_uri"], {"error": error, **back})
        code = secrets.token_urlsafe(22)
        self._codes[code] = _Grant(
            client=query["client_id"],
            user=client.user,
            scopes=scopes,
            ends_at=self._clock().mono + CODE_S,
            redirect_uri=query["redirect_uri"],
            challenge=query.get("code_challenge", ""),
        )
        return _redirect(query["redirect_uri"], {"code": code, **back})

    async def _exchange(self, request: web.Request) -> web.Response:
        if request.content_type != "application/x-www-form-urlencoded":
            return _refusal("invalid_request")
        form = {name: str(value) for name, value in (await request.post()).items()}
        client_id, secret = _client_of(request, form)
        client = self.clients.get(client_id)
        if client is None or not hmac.compare_digest(client.secret.encode(), secret.encode()):
            return _refusal("invalid_client", 401)
        if form.get("grant_type") != "authorization_code":
            return _refusal("unsupported_grant_type")
        # A code is used up by the attempt, also by one that fails.
        grant = self._codes.pop(form.get("code", ""), None)
        if (
            grant is None
            or grant.client != client_id
            or self._clock().mono > grant.ends_at
            or grant.redirect_uri != form.get("redirect_uri", "")
            or not _verifies(grant.challenge, form.get("code_verifier", ""))
        ):
            return _refusal("invalid_grant")
        token = secrets.token_urlsafe(22)
        self._tokens[token] = _Grant(client_id, grant.user, grant.scopes, self._clock().mono + TOKEN_S)
        return _json(
            {
                "access_token": token,
                "token_type": "Bearer",
                "expires_in": int(TOKEN_S),
                "refresh_token": secrets.token_urlsafe(22),
                "scope": " ".join(sorted(grant.scopes)),
            }
        )

    async def _member(self, request: web.Request) -> web.Response:
        grant = self._grant(request)
        if grant is None or "guilds.members.read" not in grant.scopes:
            return _json({"message": "401: Unauthorized", "code": 0}, 401)
        member = self._find_member(request.match_info["guild"], grant.user)
        return _json({"message": "Unknown Guild", "code": 10004}, 404) if member is None else _json(member)

    def _find_member(self, guild: str, user: str) -> Json | None:
        for bot in self._gateway.bots.values():
            if guild.isdecimal() and bot.world.has_guild(int(guild)):
                return _member_of(bot, int(guild), user)
        return None

    def _grant(self, request: web.Request) -> _Grant | None:
        grant = self._tokens.get(request.headers.get("Authorization", "").removeprefix("Bearer "))
        return grant if grant is not None and self._clock().mono < grant.ends_at else None


def _member_of(bot: Bot, guild: int, user: str) -> Json | None:
    found: Json | None = bot.world.guild(guild).members.get(user)
    return found


def _client_of(request: web.Request, form: dict[str, str]) -> tuple[str, str]:
    """The client's id and secret: from the form, or as HTTP Basic."""
    header = request.headers.get("Authorization", "")
    if not header.startswith("Basic "):
        return form.get("client_id", ""), form.get("client_secret", "")
    try:
        client_id, _, secret = base64.b64decode(header[6:], validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return "", ""
    return client_id, secret


def _verifies(challenge: str, verifier: str) -> bool:
    if not challenge:
        return True
    digest = hashlib.sha256(verifier.encode()).digest()
    made = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    return 43 <= len(verifier) <= 128 and hmac.compare_digest(made.encode(), challenge.encode())


def _redirect(url: str, query: dict[str, str]) -> web.Response:
    return web.Response(status=302, headers={"Location": f"{url}?{urlencode(query)}"})


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


def _refusal(error: str, status: int = 400) -> web.Response:
    return _json({"error": error, "error_description": f"Invalid request: {error}"}, status)
