"""The dashboard's files as a node serves them. No browser is needed."""

import gzip
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from sandwich_coordinator.app_options import effective_options
from sandwich_coordinator.intents import INTENTS, PRIVILEGED
from sandwich_coordinator.types import AppRecord
from sandwich_node.api.server import problems_only
from sandwich_node.dashboard.serving import PAGES, add_dashboard, assets
from sandwich_sdk.cache.permissions import Permissions

ROOT = Path(__file__).parents[3]
SOURCES = ROOT / "dashboard"
PLAIN = {"Accept-Encoding": "identity"}


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    app = web.Application(middlewares=[problems_only])
    add_dashboard(app)
    async with (
        TestServer(app) as server,
        aiohttp.ClientSession(str(server.make_url("/")), auto_decompress=False) as session,
    ):
        yield session


@pytest.mark.parametrize("path", ["/", *(f"/{page}" for page in PAGES), "/apps/welcomer", "/shards/welcomer/0/3"])
async def test_the_address_of_every_page_answers_with_the_document(http: aiohttp.ClientSession, path: str) -> None:
    async with http.get(path, headers=PLAIN) as response:
        assert response.status == 200
        assert response.content_type == "text/html"
        assert await response.read() == assets()["index.html"].plain


@pytest.mark.parametrize("path", ["/nothing", "/assets/nothing.js", "/assets/..%2Fserving.py", "/assets/", "/statuses"])
async def test_what_is_no_page_and_no_file_is_not_found(http: aiohttp.ClientSession, path: str) -> None:
    async with http.get(path) as response:
        assert response.status == 404


async def test_an_unknown_path_of_the_api_stays_a_problem(http: aiohttp.ClientSession) -> None:
    async with http.get("/api/v1/nothing") as response:
        assert (response.status, response.content_type) == (404, "application/problem+json")


async def test_a_file_that_the_browser_has_is_not_sent_again(http: aiohttp.ClientSession) -> None:
    async with http.get("/assets/app.js", headers={"Accept-Encoding": "gzip"}) as response:
        compressed = await response.read()
        assert response.headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(compressed) == assets()["app.js"].plain
        tag = response.headers["ETag"]
    async with http.get("/assets/app.js", headers={"Accept-Encoding": "gzip", "If-None-Match": tag}) as response:
        assert (response.status, await response.read()) == (304, b"")
    async with http.get("/assets/app.js", headers={**PLAIN, "If-None-Match": tag}) as response:
        # The other form is another file, so it has another tag.
        assert response.status == 200
        assert response.headers["ETag"] != tag
        assert "Content-Encoding" not in response.headers


async def test_a_file_of_the_version_that_the_document_names_is_kept(http: aiohttp.ClientSession) -> None:
    async with http.get("/", headers=PLAIN) as response:
        document = await response.text()
        assert response.headers["Cache-Control"] == "no-cache"
    named = re.findall(r'"(/assets/[^"]+)"', document)
    assert {path.partition("?")[0] for path in named} == {"/assets/icon.svg", "/assets/app.css", "/assets/app.js"}
    for path in named:
        async with http.get(path) as response:
            assert "immutable" in response.headers["Cache-Control"], path
        other = path[:-1] + ("0" if path[-1] != "0" else "1")
        for asked in (path.partition("?")[0], other):
            # The document may have come from a node of another release.
            async with http.get(asked) as response:
                assert (response.status, response.headers["Cache-Control"]) == (200, "no-cache"), asked


@pytest.mark.parametrize("path", ["/", "/apps/welcomer", "/assets/app.js", "/assets/app.css"])
async def test_nothing_from_elsewhere_and_nothing_inline_may_run(http: aiohttp.ClientSession, path: str) -> None:
    async with http.get(path) as response:
        policy = dict(part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_the_document_has_no_inline_script_or_style_and_no_foreign_address() -> None:
    document = assets()["index.html"].plain.decode()
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=", document)
    assert "//" not in document
    for name in ("app.js", "app.css"):
        found = re.findall(r"https?://[^\"'`\s)]+", assets()[name].plain.decode())
        # Names of XML's, and examples in help texts; none is asked.
        assert not [one for one in found if not one.startswith("http://www.w3.org/")], name


def test_the_first_page_is_small() -> None:
    first = sum(len(assets()[name].compressed) for name in ("index.html", "app.js", "app.css"))
    assert first < 100_000


def test_the_pages_of_the_server_are_those_of_the_script() -> None:
    table = (SOURCES / "src" / "pages.tsx").read_text()
    named = set(re.findall(r"pattern: /\^\\/([a-z-]+)", table))
    # The page to sign in is shown at any address.
    assert named == set(PAGES) - {"sign-in"}


def test_the_form_of_settings_has_every_key_of_an_application() -> None:
    source = (SOURCES / "src" / "options.ts").read_text()
    paths = {
        *re.findall(r'path: "([a-z_.]+)"', source),
        *(f"cache.{name}" for name in re.findall(r'cached\("(\w+)"', source)),
    }
    bare = AppRecord(app="a", token="", token_hash="", intents=0)
    known = effective_options(bare, {"max_age_s": 1.0, "max_bytes": 0, "replicas": 1})
    keys = {
        f"{key}.{name}" if isinstance(value, dict) and value else key
        for key, value in known.items()
        for name in (value if isinstance(value, dict) and value else [""])
    }
    # Pausing is a button.
    assert paths == keys - {"paused"}


def test_the_intents_are_discords() -> None:
    source = (SOURCES / "src" / "options.ts").read_text()
    named = re.findall(r'\{ name: "([A-Z_]+)"[^}]*?(isPrivileged: true)? \}', source)
    assert [name for name, _ in named] == list(INTENTS)
    assert {name for name, privileged in named if privileged} == PRIVILEGED


def test_the_permissions_are_those_of_the_sdk() -> None:
    source = (SOURCES / "src" / "permissions.ts").read_text()
    (listed,) = re.findall(r"NAMES[^=]*= \[(.*?)\];", source, re.DOTALL)
    names = re.findall(r'"(\w*)"', listed)
    assert {bit: name for bit, name in enumerate(names) if name} == {
        one.value.bit_length() - 1: one.name for one in Permissions
    }


def run_node(*arguments: str) -> "subprocess.CompletedProcess[str]":
    node = shutil.which("node")
    if node is None or not (SOURCES / "node_modules" / "esbuild").is_dir():
        pytest.skip("needs node, and npm ci in dashboard/")
    return subprocess.run([node, *arguments], cwd=SOURCES, capture_output=True, text=True, timeout=120)


def test_the_built_files_are_what_the_sources_give() -> None:
    done = run_node("build.mjs", "--check")
    assert done.returncode == 0, done.stderr


def test_the_scripts_pure_parts() -> None:
    done = run_node("--test", "tests/")
    assert done.returncode == 0, done.stdout
