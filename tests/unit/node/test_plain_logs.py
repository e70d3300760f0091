"""No text can write a line of the log, or steer the terminal that shows it."""

import json
import logging
import sys
from collections.abc import Iterator

import aiohttp
import pytest

from sandwich_coordinator.addresses import Address
from sandwich_coordinator.problems import Code, problem
from sandwich_coordinator.status import NodeStatus
from sandwich_coordinator.store.memory import MemoryStore
from sandwich_node.http.app import make_app, serve
from sandwich_node.logs import configure_logging, redact
from tests.support.api import StoredFacts

NASTY = "gone\n2026-01-01 00:00:00,000 ERROR   root: forged\r\x1b[2J\x9b\x7f\u202e\u2028\ud83d"


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    before = logging.getLogger().handlers[:], logging.getLogger().level
    yield
    logging.getLogger().handlers[:], logging.getLogger().level = before


def logged(style: str, capsys: pytest.CaptureFixture[str]) -> str:
    configure_logging("info", style=style)
    log = logging.getLogger("x")
    try:
        raise RuntimeError(NASTY)
    except RuntimeError:
        log.exception("closed by Discord: %s", NASTY, extra={"why": NASTY, NASTY: 1}, stack_info=True)
    log.warning(NASTY)
    return capsys.readouterr().err


def test_a_text_log_has_one_plain_line_a_record_and_marks_tracebacks(capsys: pytest.CaptureFixture[str]) -> None:
    lines = logged("text", capsys).splitlines()
    assert all(line.isprintable() for line in lines)
    records = [line for line in lines if not line.startswith("  | ")]
    assert [line.split(" x: ")[0].split()[-1] for line in records] == ["ERROR", "WARNING"]
    assert any("RuntimeError: gone" in line for line in lines)
    assert [line for line in lines if line.startswith("2026-01-01")] == []


def test_a_json_log_has_one_object_a_record_without_raw_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    lines = logged("json", capsys).splitlines()
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
    assert json.loads(lines[1])["message"] == NASTY
    assert NASTY in json.loads(lines[0])["exception"]


def test_a_traceback_that_another_handler_formatted_is_marked_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info")
    try:
        raise RuntimeError(NASTY)
    except RuntimeError:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "m", (), sys.exc_info())
    logging.Formatter().format(record)
    logging.getLogger().handle(record)
    assert all(line.isprintable() for line in capsys.readouterr().err.splitlines())


@pytest.mark.parametrize(
    "text",
    [
        "nats://hunter2@host:4222",
        "https://hunter2@discord.com/api",
        "redis://h/0?password=hunter2",
        "wss://g.gg/?v=10&access_token=hunter2&x=1",
    ],
)
def test_a_secret_in_any_part_of_a_url_is_removed(text: str) -> None:
    assert "hunter2" not in redact(text)
    assert redact("redis://h/0?db=1 https://discord.com/a@b") == "redis://h/0?db=1 https://discord.com/a@b"


async def test_what_a_node_says_over_http_is_plain_too() -> None:
    nasty = NASTY.removesuffix("\ud83d")
    found = problem(Code.REDIS_FULL, "redis", nasty, nasty)
    status = NodeStatus(node="a", instance="i", version="1", uptime_s=1.0, problems=[found])
    facts = StoredFacts(MemoryStore())
    facts.status = lambda: status  # type: ignore[method-assign]
    facts.not_ready = lambda: [nasty, "second"]  # type: ignore[method-assign]
    async with (
        serve(make_app(facts), Address("127.0.0.1", 0)) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http,
    ):
        async with http.get("/readyz") as response:
            lines = (await response.text()).splitlines()
        assert (len(lines), all(line.isprintable() for line in lines)) == (2, True)
        async with http.get("/status") as response:
            text = await response.text()
        assert text.isprintable()
        (shown,) = json.loads(text)["problems"]
        assert (shown["summary"], shown["advice"]) == (nasty, nasty)
