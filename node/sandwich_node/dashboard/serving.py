"""Serves the dashboard's built files. It knows nothing of the cluster: the pages read `/api/v1`, as every client does.

Pages of the dashboard have addresses of their own (`/apps/welcomer`). The same document answers all of them, and its
script shows the page. What is none of these addresses stays 404.
"""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from aiohttp import web

PAGES = ("apps", "nodes", "shards", "cache", "events", "logs", "audit", "settings", "sign-in")
"""The first part of every page's address, beside `/`."""

DOCUMENT = "index.html"

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        # A bot's picture comes inside the API's answer.
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
"""Content Security Policy: nothing from elsewhere, nothing inline."""
_ASKED_EACH_TIME = "no-cache"
"""Browsers ask each time whether they have the present one, and mostly get 304."""
_KEPT = "public, max-age=31536000, immutable"
"""Of a file whose address has its version (`?v=`)."""
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Vary": "Accept-Encoding",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """A built file, plain and compressed (gzip), with the ETag of either form."""

    content_type: str
    plain: bytes
    compressed: bytes
    etag: str

    @property
    def version(self) -> str:
        """Differs whenever the content does."""
        return self.etag[:12]

    def etag_of(self, *, compressed: bool) -> str:
        """A strong ETag: the two forms differ in their bytes."""
        return f'"{self.etag}-gz"' if compressed else f'"{self.etag}"'


@cache
def assets() -> dict[str, Asset]:
    """The built files by name. Read and compressed once, when the first browser asks (some 10 ms).

    The document names its files with their version, so that a browser that has them does not ask for them again.
    """
    found = {}
    entries = {entry.name: entry for entry in files(__package__).joinpath("static").iterdir()}
    document = entries.pop(DOCUMENT).read_bytes()
    for name, entry in entries.items():
        suffix = "." + name.rpartition(".")[2]
        if suffix in _TYPES:
            asset = found[name] = _asset(_TYPES[suffix], entry.read_bytes())
            document = document.replace(f'"/assets/{name}"'.encode(), f'"/assets/{name}?v={asset.version}"'.encode())
    found[DOCUMENT] = _asset(_TYPES[".html"], document)
    return found


def _asset(content_type: str, plain: bytes) -> Asset:
    return Asset(content_type, plain, gzip.compress(plain, 9, mtime=0), hashlib.sha256(plain).hexdigest()[:32])


def add_dashboard(app: web.Application) -> None:
    """Serve `/`, the address of every page, and `/assets/NAME`."""

    async def page(request: web.Request) -> web.Response:
        return _answer(request, assets()[DOCUMENT], _ASKED_EACH_TIME)

    async def asset(request: web.Request) -> web.Response:
        found = assets().get(request.match_info["name"])
        if found is None:
            raise web.HTTPNotFound
        # A node of another release may have served the document: then this is not the version that it names.
        is_named = request.query.get("v") == found.version
        return _answer(request, found, _KEPT if is_named else _ASKED_EACH_TIME)

    app.router.add_get("/", page)
    for name in PAGES:
        app.router.add_get(f"/{name}", page)
        app.router.add_get(f"/{name}/{{rest:.*}}", page)
    app.router.add_get("/assets/{name}", asset)


def _answer(request: web.Request, asset: Asset, cache_control: str) -> web.Response:
    compressed = "gzip" in request.headers.get("Accept-Encoding", "").lower()
    headers = {**_HEADERS, "Cache-Control": cache_control, "ETag": asset.etag_of(compressed=compressed)}
    if headers["ETag"] in (tag.strip() for tag in request.headers.get("If-None-Match", "").split(",")):
        return web.Response(status=304, headers=headers)
    headers["Content-Type"] = asset.content_type
    if compressed:
        headers["Content-Encoding"] = "gzip"
    return web.Response(body=asset.compressed if compressed else asset.plain, headers=headers)
