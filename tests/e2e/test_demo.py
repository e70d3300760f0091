"""`sandwich-node dev` as a user meets it: what it prints works in another terminal."""

import asyncio
import json
import os
import re
import shlex
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from sandwich_node.dev.cluster import command

pytestmark = pytest.mark.e2e
START_S = 90.0


@asynccontextmanager
async def demonstration() -> AsyncIterator[asyncio.subprocess.Process]:
    """Runs until the context ends, then ends by Ctrl-C with code 0."""
    process = await asyncio.create_subprocess_exec(
        command("sandwich-node"), "dev", "--plain", "--nodes", "2", "--rate", "50", stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(60):
            await process.communicate()
    assert process.returncode == 0


async def until(process: asyncio.subprocess.Process, pattern: str) -> list[str]:
    """The lines up to the first that matches."""
    assert process.stdout is not None
    lines: list[str] = []
    async with asyncio.timeout(START_S):
        while not (lines and re.search(pattern, lines[-1])):
            line = await process.stdout.readline()
            assert line, lines
            lines.append(line.decode().rstrip())
    return lines


async def run(line: str, environment: dict[str, str], *, first_line: bool = False) -> str:
    """The output of a command, which must end with 0; or its first line."""
    process = await asyncio.create_subprocess_exec(
        *shlex.split(line), env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        if first_line:
            shown = (await process.stdout.readline()).decode()
            process.kill()
            await process.communicate()
            return shown
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


async def test_what_it_prints_works_in_another_terminal_and_its_etcd_is_no_problem() -> None:
    async with demonstration() as process:
        lines = await until(process, "--plan$")
        export, *commands = [line.strip() for line in lines[-4:]]
        assert len(commands) == 3
        assert not any("CLUSTER_KEY" in line for line in lines), "the key is in a file, not in the terminal's history"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SANDWICH_")}
        given = dict(word.split("=", 1) for word in shlex.split(export)[1:])
        (*_, line) = await until(process, "^The dashboard is at ")
        found = re.search(r"(http://[0-9.:]+/) .* token: (\S+)$", line)
        assert found is not None, line
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"{found[1]}api/v1/me", headers={"Authorization": f"Bearer {found[2]}"}) as response,
        ):
            assert (response.status, (await response.json())["role"]) == (200, "admin")
        await until(process, "kill -9 [0-9]+ ends node b$")
        await until(process, "welcomer: 6 live.*music: 2 live")
        environment = {**kept, **given}
        status = json.loads(await run(f"{commands[0]} --json", environment))
        assert [problem["code"] for problem in status["problems"] if problem["code"].startswith("etcd")] == []
        assert "MESSAGE_CREATE" in await run(commands[1], environment, first_line=True)
        assert "4" in await run(commands[2], environment)
