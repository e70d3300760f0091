"""Messages about an operator's errors: understandable, with suggestions and advice."""

import asyncio
import errno
import os
import re
import socket
import ssl
import sys
from pathlib import Path
from typing import Any

import aiohttp
import nats.errors
import pytest
from pydantic import BaseModel

from sandwich_coordinator.cli.changes import change_lines, parse_changes
from sandwich_coordinator.cli.errors import command_error
from sandwich_coordinator.cli.load import ConfigError, parse_config
from sandwich_coordinator.cli.main import main
from sandwich_coordinator.config import SECTIONS
from sandwich_coordinator.network_errors import network_words
from sandwich_coordinator.operations import errors
from sandwich_coordinator.operations.applications import plan_change
from sandwich_coordinator.operations.errors import Invalid, NotFound
from sandwich_coordinator.store.etcd import EtcdStore
from sandwich_coordinator.types import AppRecord
from sandwich_sdk.errors import reason

HEAD = {"version": "1", "nats": '{servers: ["nats://h:1"]}', "redis": '{url: "redis://h/0"}'}
APP = AppRecord(app="a", token="sealed:x", token_hash="h", intents=513)
JARGON = re.compile(
    r"tuple|dict\b|dictionary|instance|Input|valid (?:string|integer|boolean|number)|parse|type=|None\b"
)
WRONG = [
    "[]",
    "{}",
    "{x: 1}",
    "[[1]]",
    "5",
    "-1",
    "1.5",
    ".nan",
    "true",
    "null",
    "''",
    "x",
    '"\\ud83d"',
    "[x, 5, null]",
]


def keys() -> list[str]:
    """Every key of cluster.yml, by its dotted path; names and list entries are examples."""
    found = []
    for path, model in SECTIONS.items():
        where = ".".join({"*": "a"}.get(part, part) for part in path)
        found += [f"{where}.{name}".lstrip(".") for name in model.model_fields if "activities" not in where]
    return sorted(found)


def yaml_with(path: str, value: str) -> str:
    """A cluster file in which the key at `path` has this value."""
    first, _, rest = path.partition(".")
    for part in reversed(rest.split(".") if rest else []):
        value = f"{{{part}: {value}}}"
    return "".join(f"{name}: {text}\n" for name, text in ({**HEAD, first: value}).items())


@pytest.mark.parametrize("path", keys())
def test_no_wrong_value_of_any_key_gives_a_librarys_message(path: str) -> None:
    for value in WRONG:
        try:
            parse_config(yaml_with(path, value), source="c.yml", env={}, directory=Path("/nonexistent"))
        except ConfigError as error:
            for problem in error.problems:
                said = problem.partition(": ")[2]
                assert JARGON.search(said) is None, (value, problem)
                assert "\n" not in problem


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("events.ignore=TYPING_START", "apps.a.events.ignore: must be a list, such as [TYPING_START]"),
        ("events.ignore=null", "apps.a.events.ignore: must be a list: [A, B]"),
        ("events.ignore=[5]", "apps.a.events.ignore[0]: must be text: put it in quotes"),
        ("events.lanes=[]", "apps.a.events.lanes: must be a mapping of names: {NAME: ...}"),
        ("events=5", "apps.a.events: must be a mapping: {KEY: VALUE}"),
        ("paused=maybe", "apps.a.paused: must be true or false"),
        ("large_threshold=many", "apps.a.large_threshold: must be a whole number"),
        ("large_threshold=5", "apps.a.large_threshold: must be 50 or more"),
        ("compression=gzip", "apps.a.compression: must be 'zstd-stream', 'zlib-stream' or 'none'"),
        ("presence.activities={name: x}", "apps.a.presence.activities: must be a list: [A, B]"),
        ("route=5", "apps.a.route: must be text: put it in quotes"),
        ("intents=GUILDS", "apps.a.intents: must be a list of intent names, or one integer"),
        ("nope.x=1", "apps.a.nope: unknown key"),
    ],
)
def test_app_set_says_what_a_value_must_be(change: str, message: str) -> None:
    with pytest.raises(Invalid) as caught:
        plan_change(APP, parse_changes([change]), {})
    assert message in str(command_error(caught.value))


def test_a_list_of_apps_is_refused_because_they_need_names() -> None:
    for value in ("[]", "null", "5"):
        with pytest.raises(ConfigError) as caught:
            parse_config(yaml_with("apps", value), source="c.yml", env={}, directory=Path("."))
        assert caught.value.problems == ["c.yml:4: apps: must be a mapping of names: {NAME: ...}"]


def test_a_change_of_intents_is_shown_by_their_names() -> None:
    plan = plan_change(APP, parse_changes(["intents=[GUILDS, GUILD_MESSAGES, MESSAGE_CONTENT]"]), {})
    assert change_lines(plan.changes) == [
        "~ application a: intents: [GUILDS, GUILD_MESSAGES] -> [GUILDS, GUILD_MESSAGES, MESSAGE_CONTENT]"
    ]


def test_an_unknown_name_is_answered_with_the_nearest_and_all_others() -> None:
    error = NotFound("application", "welcomr", ["welcomer", "music"])
    assert str(error) == "there is no application welcomr (did you mean welcomer?); there are: music, welcomer"
    assert (error.kind, error.name, error.known) == ("application", "welcomr", ("music", "welcomer"))
    assert str(NotFound("node", "x", [])) == "there is no node x; there are: none yet"


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.Refused, 1),
        (errors.Invalid, 1),
        (errors.Conflict, 1),
        (errors.NotReached, 1),
        (errors.Unavailable, 2),
    ],
)
def test_each_error_of_an_operation_has_an_exit_code(kind: type[errors.OperationError], code: int) -> None:
    ended = command_error(kind(["one", "two\x1b"]))
    assert (str(ended), ended.code) == ("one\ntwo\\x1b", code)
    assert command_error(NotFound("node", "x", ["a"])).code == 1


def closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def failing(url: str, **options: Any) -> BaseException:
    async with aiohttp.ClientSession() as http:
        with pytest.raises(Exception) as caught:
            async with asyncio.timeout(20), http.get(url, **options):
                pass
    return caught.value


async def test_an_http_connection_that_fails_says_why_and_where() -> None:
    port = closed_port()
    assert network_words(await failing(f"http://127.0.0.1:{port}")) == f"connection refused at 127.0.0.1:{port}"
    unknown = await failing("http://no-such-host.invalid")
    assert network_words(unknown).startswith("the name no-such-host.invalid cannot be resolved (")

    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not (await reader.read(1)).startswith(b"G"):
            writer.write(b"HTTP/1.1 400 This is no TLS\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(close, "127.0.0.1", 0) as server:
        url = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert network_words(await failing(f"http://{url}")) == "the server closed the connection"
        assert network_words(await failing(f"https://{url}")).startswith("TLS failed")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TimeoutError(), "no answer in time"),
        (ConnectionResetError(errno.ECONNRESET, "x ssl:default y"), "connection reset by peer"),
        (ConnectionResetError(), "connection reset by peer"),
        (BrokenPipeError(), "broken pipe"),
        (OSError("odd"), "OSError"),
        (ValueError("a header with the token"), "ValueError"),
        (ssl.SSLError(1, "odd"), "operation not permitted"),
    ],
)
def test_other_errors_are_named_without_a_library_s_text(error: Exception, words: str) -> None:
    assert network_words(error) == words


async def test_an_etcd_that_refuses_connections_is_reported_as_refusing_them() -> None:
    port = closed_port()
    store = EtcdStore([f"http://127.0.0.1:{port}"])
    with pytest.raises(Exception, match=f"connection refused at 127.0.0.1:{port}") as caught:
        await store.get("x")
    assert "ssl:default" not in str(caught.value)
    await store.close()


@pytest.mark.parametrize(
    "url", ["http://:pw@h:1", "http://u@h:1", "http://h:99999", "http://h:0", "http://h?x", "ftp://h"]
)
def test_an_unusable_etcd_url_is_refused_before_its_use(url: str) -> None:
    with pytest.raises(ValueError, match="an etcd endpoint is") as caught:
        EtcdStore([url])
    assert "pw" not in str(caught.value)


def refused_certificate(words: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed (_ssl.c:1006)")
    error.verify_message = words
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (nats.errors.OutboundBufferLimitError(), "not connected"),
        (nats.errors.TimeoutError(), "no answer in time"),
        (TimeoutError(), "no answer in time"),
        (nats.errors.NoServersError(), "no server could be reached"),
        (nats.errors.AuthorizationError(), "the user, password or credentials are refused"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 1)"), os.strerror(111)),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (refused_certificate("self-signed certificate"), "TLS failed: self-signed certificate"),
        (ssl.SSLError(1, "[SSL] internal error (_ssl.c:1006)"), "TLS failed: SSLError"),
        (nats.errors.Error("nats: permissions violation\x1b"), "nats: permissions violation\\x1b"),
    ],
)
def test_errors_of_nats_are_explained(error: Exception, words: str) -> None:
    assert reason(error) == words


@pytest.mark.parametrize("models", [SECTIONS])
def test_every_section_is_checked_strictly(models: dict[Any, type[BaseModel]]) -> None:
    assert all(model.model_config.get("strict") for model in models.values())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tail", "--guild", "chess"], "--guild: 'chess' is not a Discord id"),
        (["--etcd", "http://h:99999", "node", "list"], "with a port from 1 to 65535"),
        (["--etcd-password-file", "/dev/zero", "node", "list"], "it is a device, not a regular file"),
        (["--cluster", "A B", "node", "list"], "--cluster must be 1 to 32 characters"),
        (["clster"], "Did you mean 'cluster'"),
    ],
)
def test_a_bad_option_is_one_line_and_code_2(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sandwich", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert said in printed.err
    assert len(printed.err.splitlines()) == 1
