"""The image's health check, against real listeners."""

import asyncio
import os
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from sandwich_node.dev.ports import free_ports
from tests.support.certificates import certificate

HEALTH_CHECK = Path(__file__).parents[2] / "deploy" / "image" / "healthcheck"


@asynccontextmanager
async def node(status: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A listener that answers `/healthz` with this status; yields its port."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(status=status)

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def check(listen: str) -> tuple[int | None, str]:
    """Exit code and errors of the health check, started as its first line says."""
    words = HEALTH_CHECK.read_text().splitlines()[0].split()[1:]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *words,
        str(HEALTH_CHECK),
        env={**os.environ, "SANDWICH_LISTEN": listen},
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        _, error = await process.communicate()
    return process.returncode, error.decode()


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", ""])
async def test_a_node_that_answers_is_healthy_wherever_it_listens(host: str) -> None:
    async with node(200) as port:
        assert await check(f"{host}:{port}") == (0, "")


async def test_a_node_that_answers_in_tls_is_healthy(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate(tmp_path, "node-a"))
    async with node(200, context) as port:
        assert await check(f"0.0.0.0:{port}") == (0, "")


async def test_another_answer_or_none_is_not_healthy() -> None:
    async with node(503) as port:
        assert (await check(f"0.0.0.0:{port}"))[0] == 1
    (port,) = free_ports(1)
    code, error = await check(f"0.0.0.0:{port}")
    assert code == 1
    assert "refused" in error
