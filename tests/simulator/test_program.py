"""The simulator as a program: it prints its address and ends on a signal."""

import asyncio
import signal
import sys
from pathlib import Path

import aiohttp
import msgspec

from tests.support.processes import started

from .gateway_client import GatewayClient

DEADLINE_S = 60.0


async def test_the_program_listens_serves_and_ends_cleanly(tmp_path: Path) -> None:
    journal = tmp_path / "journal.ndjson"
    command = "from sandwich_simulator.main import main; main()"
    arguments = ["--bot", "tok:2", "--port", "0", "--rate", "200", "--seed", "5", "--journal", str(journal)]
    output = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
    async with (
        asyncio.timeout(DEADLINE_S),
        started(sys.executable, "-c", command, *arguments, **output) as process,
    ):
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        assert line.startswith("listening on http://127.0.0.1:")
        base = line.split()[-1]
        async with GatewayClient(base.replace("http", "ws"), compress="zstd-stream") as client:
            await client.identify("tok")
            await client.until("MESSAGE_CREATE")
        async with aiohttp.ClientSession() as http:
            assert (await http.post(f"{base}/_sim/pause_traffic")).status == 200
        process.send_signal(signal.SIGTERM)
        _, errors = await process.communicate()
        assert (process.returncode, errors) == (0, b"")
    entries = [msgspec.json.decode(entry) for entry in journal.read_bytes().splitlines()]
    assert [entry["seq"] for entry in entries] == list(range(1, len(entries) + 1))
    assert "tok" not in journal.read_text().replace("token", "")


async def test_the_program_shows_its_version() -> None:
    command = "from sandwich_simulator.main import main; main()"
    pipe = asyncio.subprocess.PIPE
    async with (
        asyncio.timeout(DEADLINE_S),
        started(sys.executable, "-c", command, "--version", stdout=pipe) as process,
    ):
        shown, _ = await process.communicate()
    assert (process.returncode, shown.decode().split()[0]) == (0, "sandwich")
