"""Kept names: a repeated question does not wait for the resolver. The resolver is a fake that answers on command."""

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from sandwich_node.names import ASK_AGAIN_S, FRESH_S, NAMES_MAX, QUESTIONS_MAX, STALE_MAX_S, Address, Names

DEADLINE_S = 10.0


def at(*addresses: str) -> list[Address]:
    return [(socket.AF_INET, (address, 0)) for address in addresses]


class Resolver:
    """Answers at once while `open`; else a question hangs until it is."""

    def __init__(self, *addresses: str) -> None:
        self.answer: list[Address] | OSError = at(*addresses)
        self.open = threading.Event()
        self.open.set()
        self.asked: list[str] = []

    def __call__(self, host: str) -> list[Address]:
        self.asked.append(host)
        assert self.open.wait(DEADLINE_S)
        if isinstance(self.answer, OSError):
            raise self.answer
        return self.answer


class Stage:
    def __init__(self, *addresses: str) -> None:
        self.now = 1000.0
        self.resolver = Resolver(*addresses)
        self.names = Names(self.resolver, lambda: self.now)

    async def ask(self, host: str = "redis.test") -> list[str]:
        async with asyncio.timeout(DEADLINE_S):
            return [address[0] for _, address in await self.names.addresses(host)]


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.fixture
def stage() -> Any:
    stage = Stage("10.0.0.1")
    yield stage
    stage.resolver.open.set()


async def test_an_answer_is_kept_and_asked_for_again_only_when_it_is_no_longer_fresh(stage: Stage) -> None:
    for _ in range(3):
        assert await stage.ask() == ["10.0.0.1"]
    assert len(stage.resolver.asked) == 1
    stage.now += FRESH_S
    assert await stage.ask() == ["10.0.0.1"]
    # The question is asked in a thread.
    await until(lambda: len(stage.resolver.asked) == 2)


async def test_while_the_resolver_hangs_the_last_good_answer_is_used_and_one_question_is_on_its_way(
    stage: Stage,
) -> None:
    await stage.ask()
    stage.resolver.open.clear()
    stage.resolver.answer = at("10.0.0.2")
    for _ in range(200):
        stage.now += FRESH_S
        assert await stage.ask() == ["10.0.0.1"]
    await until(lambda: len(stage.resolver.asked) >= 2)
    assert len(stage.resolver.asked) == 2
    stage.resolver.open.set()
    async with asyncio.timeout(DEADLINE_S):
        while await stage.ask() != ["10.0.0.2"]:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_a_deadline_of_who_asks_first_does_not_end_the_question(stage: Stage) -> None:
    stage.resolver.open.clear()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await stage.names.addresses("redis.test")
    assert len(stage.resolver.asked) == 1
    stage.resolver.open.set()
    assert await stage.ask() == ["10.0.0.1"]
    assert len(stage.resolver.asked) == 1


async def test_a_name_that_hangs_holds_up_no_other(stage: Stage) -> None:
    await stage.ask("other.test")
    stage.resolver.open.clear()
    hanging = asyncio.create_task(stage.ask("hangs.test"))
    await until(lambda: "hangs.test" in stage.resolver.asked)
    assert await stage.ask("other.test") == ["10.0.0.1"]
    stage.resolver.open.set()
    assert await hanging == ["10.0.0.1"]


@pytest.mark.parametrize("error", [socket.gaierror(socket.EAI_AGAIN, "try again"), OSError(24, "Too many open files")])
async def test_a_failure_is_raised_for_a_new_name_and_passed_over_for_a_known_one(stage: Stage, error: OSError) -> None:
    await stage.ask()
    stage.resolver.answer = error
    with pytest.raises(OSError, match=error.strerror):
        await stage.ask("another.test")
    stage.now += FRESH_S
    assert await stage.ask() == ["10.0.0.1"]
    await until(lambda: stage.names._asking == 0)
    assert await stage.ask() == ["10.0.0.1"]
    assert stage.resolver.asked.count("redis.test") == 2, "not asked again before some time has passed"
    stage.now += ASK_AGAIN_S
    assert await stage.ask() == ["10.0.0.1"]
    await until(lambda: stage.resolver.asked.count("redis.test") == 3)


async def test_an_answer_that_could_not_be_renewed_for_an_hour_is_not_used_any_more(stage: Stage) -> None:
    await stage.ask()
    stage.resolver.answer = socket.gaierror(socket.EAI_NONAME, "no such name")
    stage.now += STALE_MAX_S + 1
    with pytest.raises(socket.gaierror, match="no such name"):
        await stage.ask()


async def test_no_address_at_all_is_an_error_and_not_an_answer(stage: Stage) -> None:
    stage.resolver.answer = []
    with pytest.raises(socket.gaierror):
        await stage.ask()


async def test_an_address_that_failed_is_tried_last_and_the_name_is_asked_for_again(stage: Stage) -> None:
    stage.resolver.answer = at("10.0.0.1", "10.0.0.2")
    await stage.ask()
    stage.names.demote("redis.test", (socket.AF_INET, ("10.0.0.1", 0)))
    stage.now += ASK_AGAIN_S
    assert await stage.ask() == ["10.0.0.2", "10.0.0.1"]
    await until(lambda: len(stage.resolver.asked) == 2)


async def test_names_and_questions_are_bounded(stage: Stage) -> None:
    for number in range(NAMES_MAX + 50):
        await stage.ask(f"{number}.test")
    assert len(stage.names._entries) == NAMES_MAX
    stage.resolver.open.clear()
    asking = [asyncio.create_task(stage.ask(f"new-{number}.test")) for number in range(QUESTIONS_MAX)]
    await until(lambda: stage.names._asking == QUESTIONS_MAX)
    with pytest.raises(socket.gaierror, match="too many unanswered questions"):
        await stage.ask("one-more.test")
    stage.resolver.open.set()
    await asyncio.gather(*asking)


async def test_a_thread_that_cannot_be_started_is_a_name_that_is_not_resolved(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(socket.gaierror, match="can't start new thread"):
        await stage.ask()
    monkeypatch.undo()
    assert await stage.ask() == ["10.0.0.1"]
