"""Who sends a request: an API token, or a web session of a user who signed in.

The cluster's view has all tokens and users, so that a request costs no read of etcd, and what is taken away counts at
once on every node. While etcd does not answer, the last view counts.
"""

import asyncio
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from aiohttp import web

from sandwich_coordinator.access.exposure import is_api_on
from sandwich_coordinator.access.identities import WebSession, read_web_session, token_identity, user_identity
from sandwich_coordinator.access.roles import ANONYMOUS, Identity
from sandwich_coordinator.config import ApiSettings
from sandwich_coordinator.view import ClusterView
from sandwich_node.api.clients import client_address, is_https, network_of
from sandwich_node.api.cluster import ApiCluster
from sandwich_node.api.limits import RateLimit
from sandwich_node.api.problem_details import ApiError
from sandwich_node.api.routing import Route
from sandwich_node.api.server import CLIENT

SECURE_COOKIE = "__Host-sandwich"
"""Over https: the browser takes it from this host alone, and only over https (RFC 6265bis, cookie prefixes)."""
PLAIN_COOKIE = "sandwich"
REQUEST_HEADER = "X-Sandwich-Request"
FAILURES = 20
FAILURE_EVERY_S = 3.0
_BEARER = "bearer "


class Access:
    """Identifies the sender of a request to a node that listens on `host`."""

    def __init__(self, cluster: ApiCluster, host: str, *, wall: Callable[[], float] = time.time) -> None:
        self.cluster = cluster
        self.wall = wall
        self._host = host
        self._failures = RateLimit(FAILURES, FAILURE_EVERY_S)

    @property
    def settings(self) -> ApiSettings:
        """The section `api` that counts now."""
        settings = self.cluster.facts.settings()
        return settings.api if settings is not None else ApiSettings()

    async def identify(self, request: web.Request, route: Route) -> Identity:
        """Who sends this request. Raises ApiError: not-found where the API is off, unauthenticated, forbidden for a
        request of another site, too-many-requests after many failures of this client."""
        self.check_on()
        request[CLIENT] = self.client_of(request)
        return self.identity_of(request, is_change=route.is_change)

    def check_on(self) -> None:
        """Raise ApiError where the API is off."""
        if not is_api_on(self.settings.enabled, self._host):
            raise ApiError("not-found", "the HTTP API is off on this node: api.enabled in cluster.yml")

    def identity_of(self, request: web.Request, *, is_change: bool) -> Identity:
        """As `identify`, also where the API is off."""
        header = request.headers.get("Authorization")
        if header is not None:
            return self._of_token(request, header)
        text = self.session_of(request)
        if text is None:
            return ANONYMOUS
        view = self.cluster.view()
        session = read_web_session(view, self.cluster.key, text, self.wall())
        identity = self._of_session(view, session)
        if identity is None:
            raise self._failed(request, "the web session has ended: sign in again")
        self._check_same_site(request, is_change)
        return identity

    def session_of(self, request: web.Request) -> str | None:
        """The web session in the request's cookie."""
        return request.cookies.get(SECURE_COOKIE if self.is_https(request) else PLAIN_COOKIE)

    def is_https(self, request: web.Request) -> bool:
        """Whether the client uses https."""
        if self.settings.public_url:
            return self.settings.public_url.startswith("https://")
        proto = request.headers.get("X-Forwarded-Proto", "")
        return is_https(request.scheme, request.remote or "", proto, self.settings.trusted_proxies)

    def client_of(self, request: web.Request) -> str:
        """The client's address."""
        forwarded = request.headers.getall("X-Forwarded-For", [])
        return client_address(request.remote or "", forwarded, self.settings.trusted_proxies)

    def _of_token(self, request: web.Request, header: str) -> Identity:
        if header[: len(_BEARER)].lower() != _BEARER:
            raise self._failed(request, "send an API token: Authorization: Bearer TOKEN")
        text = header[len(_BEARER) :].strip()
        identity = token_identity(self.cluster.view(), self.cluster.key, text, self.wall())
        if identity is None:
            raise self._failed(request, "the API token is not known, has expired, or was taken away")
        return identity

    def _of_session(self, view: ClusterView, session: WebSession | None) -> Identity | None:
        if session is None:
            return None
        login = self.settings.discord_login
        guilds = login.guilds if login is not None else {}
        return user_identity(view, self.cluster.key, session.user, session.guild_roles, guilds)

    def _failed(self, request: web.Request, detail: str) -> ApiError:
        """A failure is counted by client. What is genuine still passes: other clients may have the same address."""
        wait_s = self._failures.take(network_of(self.client_of(request)), asyncio.get_running_loop().time())
        if wait_s:
            return ApiError("too-many-requests", "too many failed attempts from your address", retry_after_s=wait_s)
        return ApiError("unauthenticated", detail)

    def _check_same_site(self, request: web.Request, is_change: bool) -> None:
        """A browser sends the cookie whoever made the page. Raises ApiError unless the page is of this site."""
        site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
        if site in ("cross-site", "same-site") or (origin is not None and origin != self._origin(request)):
            raise ApiError("forbidden", "this request comes from a page of another site")
        if not is_change:
            return
        if site is None and origin is None:
            raise ApiError("forbidden", "a change with a web session needs the header Origin or Sec-Fetch-Site")
        if site not in (None, "same-origin") or request.headers.get(REQUEST_HEADER) != "1":
            raise ApiError("forbidden", f"a change with a web session needs the header {REQUEST_HEADER}: 1")

    def _origin(self, request: web.Request) -> str:
        """The origin of this site's own pages."""
        if self.settings.public_url:
            parts = urlsplit(self.settings.public_url)
            return f"{parts.scheme}://{parts.netloc}"
        return f"{'https' if self.is_https(request) else 'http'}://{request.host}"
