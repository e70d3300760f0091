"""Measured programs: what they print is read, and how they end is said."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence

import pytest

from benchmarks import processes
from benchmarks.processes import Client, ClientFailed, cpu_s, lines, program, until_quiet
from verification.simulation.loop import run_virtual


def script(text: str) -> tuple[str, ...]:
    return (sys.executable, "-c", f"import os, sys, time\n{text}")


READY = "print('ready', flush=True)\n"


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the end of a process takes as long as it likes."""
    monkeypatch.setattr(processes, "END_S", 60.0)


async def read_all(*chunks: bytes) -> list[str]:
    stream = asyncio.StreamReader()
    for chunk in chunks:
        stream.feed_data(chunk)
    stream.feed_eof()
    return [line async for line in lines(stream)]


async def test_lines_in_any_pieces() -> None:
    assert await read_all(b"one\ntw", b"o\n\nthree") == ["one", "two", "", "three"]
    assert await read_all(b"\xff\n") == ["�"]
    assert await read_all() == []


@pytest.mark.parametrize("size", [processes.KEPT_BYTES + 1, 3 * processes.CHUNK_BYTES])
async def test_of_a_very_long_line_its_end_is_kept(size: int) -> None:
    kept = "x" * (processes.KEPT_BYTES - 3) + "end"
    assert await read_all(b"x" * size + b"end\nnext\n" + b"x" * size + b"end") == [kept, "next", kept]


async def test_a_client_with_very_long_lines_is_read_on() -> None:
    long = "print('x' * 200_000, file={0}, flush=True)\n"
    words = script(
        long.format("sys.stderr") * 3 + long.format("sys.stdout") + f"{READY}print(7, flush=True)\nsys.exit('z')"
    )
    async with program(words, {}) as client:
        assert str(await client.failure()) == "ended with exit code 1: z"
        assert client.messages == 7


async def why_it_failed(words: Sequence[str], use: Callable[[Client], Awaitable[object]], **more: float) -> str:
    """What is said of a program that fails before it is ready, or while `use` needs it."""
    try:
        async with program(words, {}, **more) as client, client.must_run():
            await use(client)
    except ClientFailed as failed:
        return str(failed)
    raise AssertionError("it did not fail")


async def not_reached(client: Client) -> None:
    raise AssertionError("it is not ready")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("sys.exit('no token')", "ended with exit code 1: no token"),
        ("sys.exit(3)", "ended with exit code 3"),
        ("os.kill(os.getpid(), 9)", "ended by SIGKILL"),
        ("print('first\\n\\nlast\\n\\n', file=sys.stderr)\nsys.exit(1)", "ended with exit code 1: last"),
    ],
)
async def test_a_client_that_ends_before_it_is_ready_says_why(text: str, reason: str) -> None:
    assert await why_it_failed(script(text), not_reached) == reason


async def test_what_is_said_after_the_end_is_read() -> None:
    """A process that it started has the same stderr, and the last word."""
    later = "me = os.getpid()\nif os.fork():\n    os._exit(4)\nwhile os.getppid() == me:\n    time.sleep(0.01)\n"
    words = script(f"{later}os.close(1)\ntime.sleep(0.1)\nprint('last', file=sys.stderr)")
    assert await why_it_failed(words, not_reached) == "ended with exit code 4: last"


async def test_a_client_that_cannot_be_started_or_is_not_ready_in_time() -> None:
    reason = await why_it_failed(("/nothing-here",), not_reached)
    assert reason == "nothing-here cannot be started: No such file or directory"
    assert await why_it_failed(script("time.sleep(1000)"), not_reached, timeout_s=0.01) == "not ready in 0 s"


async def test_what_needs_a_client_fails_with_the_reason_of_its_end() -> None:
    faults = []

    async def measure(client: Client) -> None:
        try:
            while True:
                cpu_s(client.pid)
                await asyncio.sleep(0)
        except OSError as error:
            faults.append(error)
            raise

    async def see_its_end(client: Client) -> None:
        await client.failure()

    dies = script(f"{READY}sys.exit('lost the gateway')")
    assert await why_it_failed(dies, measure) == "ended with exit code 1: lost the gateway"
    assert len(faults) == 1
    assert await why_it_failed(dies, see_its_end) == "ended with exit code 1: lost the gateway"


async def test_a_fault_that_is_not_the_clients_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(client: Client, error: BaseException) -> None:
        async with client.must_run():
            raise error

    monkeypatch.setattr(processes, "END_S", 0.01)
    async with program(script(f"{READY}time.sleep(1000)"), {}) as client:
        for error in (KeyError("x"), ClientFailed("handled nothing"), asyncio.CancelledError()):
            with pytest.raises(type(error)) as caught:
                await fail(client, error)
            assert caught.value is error
        with pytest.raises(ClientFailed, match="not quiet or done in time"):
            await fail(client, TimeoutError())


def test_processes_are_quiet_when_all_are(monkeypatch: pytest.MonkeyPatch) -> None:
    busy_until = {1: 3.5, 2: 7.5}

    def used(pid: int) -> float:
        return min(asyncio.get_running_loop().time(), busy_until[pid])

    async def main() -> None:
        assert await until_quiet(*busy_until) == pytest.approx(3.5 + 7.5)
        assert asyncio.get_running_loop().time() == pytest.approx(9.0)

    monkeypatch.setattr(processes, "cpu_s", used)
    run_virtual(main())
