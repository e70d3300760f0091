"""Users sign in with Discord: `/auth/login`, `/auth/callback`, and `/auth/logout`.

Any node can answer the callback: what belongs together is in a cookie of the browser that began. Discord's access token
is used for the questions of this sign-in and kept nowhere.
"""

import asyncio
import hmac
import logging
import secrets
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from urllib.parse import quote, unquote

import aiohttp
from aiohttp import web

from sandwich_coordinator.access.identities import SESSION_S, WebSession, user_identity, web_session_text
from sandwich_coordinator.access.roles import Identity
from sandwich_coordinator.config import LOGIN_SECRET, DiscordLoginSettings, DiscordSettings
from sandwich_coordinator.discord_api import DiscordUnavailable
from sandwich_coordinator.discord_login import (
    LoginApp,
    SignInRefused,
    authorize_url,
    exchange_code,
    fetch_login_user,
    fetch_member_roles,
)
from sandwich_coordinator.operations.access import begin_web_session, end_web_sessions
from sandwich_coordinator.sealing import open_plain
from sandwich_coordinator.store.base import StoreError
from sandwich_node.api.access import PLAIN_COOKIE, SECURE_COOKIE, Access
from sandwich_node.api.audit import Audit
from sandwich_node.api.clients import network_of
from sandwich_node.api.limits import RateLimit
from sandwich_node.api.problem_details import EXPECTED, ApiError
from sandwich_node.api.server import problem_response

_log = logging.getLogger(__name__)

CALLBACK = "/auth/callback"
LOGIN_S = 600
"""As long as Discord's code is valid."""
ATTEMPTS = 10
ATTEMPT_EVERY_S = 6.0
NEXT_CHARACTERS_MAX = 512
CODE_CHARACTERS_MAX = 256
OpenHttp = Callable[[DiscordSettings], AbstractAsyncContextManager[aiohttp.ClientSession]]
_Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class SigningIn:
    """The three pages. `open_http`: a session for Discord with the cluster's settings."""

    def __init__(self, access: Access, audit: Audit, open_http: OpenHttp) -> None:
        self._access = access
        self._audit = audit
        self._open_http = open_http
        self._attempts = RateLimit(ATTEMPTS, ATTEMPT_EVERY_S)

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        app.router.add_get("/auth/methods", self._page(self._methods))
        app.router.add_get("/auth/login", self._page(self._login, limited=True))
        app.router.add_get(CALLBACK, self._page(self._callback, limited=True))
        app.router.add_post("/auth/logout", self._page(self._logout))

    def _page(self, answer: _Answer, *, limited: bool = False) -> _Answer:
        """A page with the checks of all of them; an error is answered as a problem. `limited`: by client address."""

        async def checked(request: web.Request) -> web.StreamResponse:
            try:
                self._access.check_on()
                if limited:
                    self._limit(request)
                response = await answer(request)
            except EXPECTED as error:
                response = problem_response(error)
            response.headers["Cache-Control"] = "no-store"
            response.headers["Referrer-Policy"] = "no-referrer"
            return response

        return checked

    def _limit(self, request: web.Request) -> None:
        client = network_of(self._access.client_of(request))
        if wait_s := self._attempts.take(client, asyncio.get_running_loop().time()):
            raise ApiError("too-many-requests", "too many sign-ins from your address", retry_after_s=wait_s)

    async def _methods(self, _request: web.Request) -> web.Response:
        """How people can sign in beside an API token, for the page that asks them to."""
        return web.json_response({"discord": self._access.settings.discord_login is not None})

    async def _login(self, request: web.Request) -> web.Response:
        app = self._app(self._settings())
        state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(48)
        response = _redirect(authorize_url(app, state, verifier))
        self._set(response, request, "-login", f"{state}.{verifier}.{_quoted(request.query.get('next'))}", LOGIN_S)
        return response

    async def _callback(self, request: web.Request) -> web.Response:
        login = self._settings()
        kept = request.cookies.get(self._name(request, "-login"), "")
        state, _, rest = kept.partition(".")
        verifier, _, path = rest.partition(".")
        given = request.query.get("state", "")
        if not verifier or not hmac.compare_digest(state.encode(), given.encode(errors="replace")):
            raise ApiError("forbidden", "this sign-in was not begun in this browser, or too long ago: begin again")
        code = request.query.get("code", "")
        if not code or len(code) > CODE_CHARACTERS_MAX:
            raise ApiError("forbidden", "Discord did not confirm the sign-in: begin again")
        session = await self._session(login, code, verifier)
        identity = await self._allowed(request, login, session)
        try:
            sign_in = await begin_web_session(self._access.cluster.store, self._access.cluster.keys, session.user)
        except StoreError as error:
            raise ApiError("unavailable", f"the sign-in cannot be stored: {error}", retry_after_s=1.0) from None
        await self._audit.note(identity, "sign-in", client=self._access.client_of(request))
        await self._access.cluster.settle()
        response = _redirect(_next(path))
        cluster = self._access.cluster
        text = web_session_text(session, cluster.keys.cluster, cluster.key, sign_in)
        self._set(response, request, "", text, int(SESSION_S))
        self._unset(response, request, "-login")
        return response

    async def _session(self, login: DiscordLoginSettings, code: str, verifier: str) -> WebSession:
        """Ask Discord who this is."""
        app = self._app(login)
        settings = self._access.cluster.settings()
        try:
            async with self._open_http(settings.discord) as http:
                token = await exchange_code(http, app, code, verifier)
                user = await fetch_login_user(http, app.api_url, token)
                roles = {
                    guild: sorted(mapped.keys() & set(await fetch_member_roles(http, app.api_url, token, guild)))
                    for guild, mapped in login.guilds.items()
                }
        except SignInRefused as error:
            raise ApiError("forbidden", str(error)) from None
        except DiscordUnavailable as error:
            raise ApiError("unavailable", str(error), retry_after_s=5.0) from None
        return WebSession(
            user=user.id,
            name=user.username,
            ends_at=self._access.wall() + SESSION_S,
            guild_roles={guild: held for guild, held in roles.items() if held},
        )

    async def _allowed(self, request: web.Request, login: DiscordLoginSettings, session: WebSession) -> Identity:
        """Who this is here. Raises ApiError, after an entry in the audit log, for a user without a role."""
        cluster = self._access.cluster
        identity = user_identity(cluster.view(), cluster.key, session.user, session.guild_roles, login.guilds)
        if identity is not None:
            return identity
        error = ApiError("forbidden", f"your Discord account {session.user} has no role here: ask an admin")
        stranger = Identity("user", session.user, None)
        await self._audit.note(stranger, "sign-in", client=self._access.client_of(request), error=error)
        raise error

    async def _logout(self, request: web.Request) -> web.Response:
        """End all web sessions of the user, on every node."""
        identity = self._access.identity_of(request, is_change=True)
        response = web.Response(status=204)
        self._unset(response, request, "")
        if identity.kind == "user":
            cluster = self._access.cluster
            await end_web_sessions(cluster.store, cluster.keys, identity.name)
            await cluster.settle()
            await self._audit.note(identity, "sign-out", client=self._access.client_of(request))
        return response

    def _settings(self) -> DiscordLoginSettings:
        login = self._access.settings.discord_login
        if login is None:
            raise ApiError("not-found", "sign-in is not configured: api.discord_login in cluster.yml")
        return login

    def _app(self, login: DiscordLoginSettings) -> LoginApp:
        """Raises SealingError when the secret cannot be opened."""
        key = self._access.cluster.key
        sealed = login.client_secret
        secret = open_plain(LOGIN_SECRET, sealed, allow_plain=True) if key is None else key.unseal(LOGIN_SECRET, sealed)
        return LoginApp(
            api_url=self._access.cluster.settings().discord.api_url,
            client_id=login.client_id,
            client_secret=secret,
            redirect_uri=self._access.settings.public_url + CALLBACK,
            with_guilds=bool(login.guilds),
        )

    def _name(self, request: web.Request, suffix: str) -> str:
        return (SECURE_COOKIE if self._access.is_https(request) else PLAIN_COOKIE) + suffix

    def _set(self, response: web.Response, request: web.Request, suffix: str, value: str, age_s: int) -> None:
        secure = self._access.is_https(request)
        response.set_cookie(
            self._name(request, suffix), value, max_age=age_s, path="/", httponly=True, secure=secure, samesite="Lax"
        )

    def _unset(self, response: web.Response, request: web.Request, suffix: str) -> None:
        secure = self._access.is_https(request)
        response.del_cookie(self._name(request, suffix), path="/", httponly=True, secure=secure, samesite="Lax")


def _redirect(url: str) -> web.Response:
    return web.Response(status=302, headers={"Location": url})


def _quoted(path: str | None) -> str:
    """Where the user wants to go after the sign-in, so that it fits into a cookie."""
    return quote(path[:NEXT_CHARACTERS_MAX], safe="/") if path else ""


def _next(quoted: str) -> str:
    """A path of this site. Anything else would send a user who trusts this site to another one."""
    path = unquote(quoted)
    is_own = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable() and path.isascii()
    return path if is_own else "/"
