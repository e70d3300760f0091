"""What `sandwich app add` is given: options, a file, a pipe; and that no message repeats a token."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sandwich_coordinator.cli.changes import parse_changes
from sandwich_coordinator.cli.errors import CommandError
from sandwich_coordinator.cli.new_app import NewApp, read_new_app
from sandwich_coordinator.cli.token_input import read_token
from sandwich_coordinator.operations.errors import Invalid
from sandwich_coordinator.small_files import read_secret_stream

TOKEN = "MTAwMDAwMDAwMDAwMDAwMDA.GaaaaX.canary-of-the-new-bot-0123456789"
ENV = {"BOT_TOKEN": TOKEN, "EMPTY": " "}
NOTHING = {"intents": None, "shards": None, "ids": None, "paused": None}


def given(
    *changes: str,
    file: Path | None = None,
    token_env: str | None = "BOT_TOKEN",
    env: Mapping[str, str] = ENV,
    **options: Any,
) -> NewApp:
    return read_new_app(
        "bot", file=file, changes=changes, options=NOTHING | options, token_from=(token_env, None), env=env
    )


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)


def test_options_and_keys_make_one_checked_configuration() -> None:
    new = given("cache.presences=true", intents="guilds, GUILD_MESSAGES", shards="4", ids="0-1,3", paused=True)
    assert (new.config.intents, new.config.shards.count, new.config.shards.ids) == (513, 4, "0-1,3")
    assert (new.config.cache.presences, new.config.paused, new.token) == (True, True, TOKEN)
    assert TOKEN not in repr(new)
    assert given(intents="513").config.shards.count == "auto"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"intents": "GILDS"}, "apps.bot.intents: unknown intent 'GILDS' (did you mean GUILDS?)"),
        ({"intents": "1099511627776"}, "apps.bot.intents: 1099511627776 has bits that Discord does not define"),
        ({"intents": "1", "shards": "0"}, "apps.bot.shards.count: must be auto, or a number from 1 to 65536"),
        ({"intents": "1", "shards": "-4"}, "apps.bot.shards.count: must be auto, or a number from 1 to 65536"),
        ({"intents": "1", "shards": "65537"}, "apps.bot.shards.count: must be auto, or a number from 1 to 65536"),
        ({"intents": "1", "shards": "many"}, "apps.bot.shards.count: must be auto, or a number from 1 to 65536"),
        ({"intents": "1", "ids": "3-1"}, "apps.bot.shards.ids: bad shard range '3-1': it ends before it starts"),
        ({"intents": "1", "ids": "0-99999999"}, "apps.bot.shards.ids: bad shard range '0-99999999'"),
        ({"intents": "1", "ids": "1,1"}, "apps.bot.shards.ids: bad shard range '1': it names shard 1 again"),
        ({"intents": "1", "shards": "4", "ids": "4"}, "apps.bot.shards.ids: bad shard range '4': with 4 shards"),
    ],
)
def test_a_wrong_option_is_named_by_its_key(options: dict[str, Any], words: str) -> None:
    with pytest.raises(Invalid) as caught:
        given(**options)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("file", "intents", "words"),
    [(None, None, "say which intents"), (Path("x"), "1", "give either --from, or options")],
)
def test_what_is_missing_or_given_twice_is_said(file: Path | None, intents: str | None, words: str) -> None:
    with pytest.raises(CommandError, match=words) as caught:
        given(file=file, intents=intents)
    assert caught.value.code == 2


def test_a_file_has_the_section_of_cluster_yml_with_the_line_of_each_mistake(tmp_path: Path) -> None:
    file = tmp_path / "app.yml"
    file.write_text("token: {env: BOT_TOKEN}\nintents: [GUILDS]\nshards: {count: 2}\n")
    new = given(file=file, token_env=None)
    assert (new.config.shards.count, new.token, new.warnings) == (2, TOKEN, ())
    file.write_text("intents: [GUILDS]\nshards:\n  count: 2\n  ids: 0-2\nroutes: x\n")
    with pytest.raises(CommandError) as caught:
        given(file=file)
    assert str(caught.value).splitlines() == [
        f"{file}:4: shards.ids: bad shard range '0-2': with 2 shards the last id is 1",
        f"{file}:5: routes: unknown key (did you mean route?)",
    ]
    file.write_text(f"token: {TOKEN}\nintents: [GUILDS]\n")
    new = given(file=file, token_env=None)
    assert new.warnings == (f"{file}:1: token: the file contains the secret: {{env: NAME}} or {{file: PATH}} is safer",)
    for text, words in (
        ("version: 1\napps: {bot: {intents: 1}}\n", "is a whole cluster file: sandwich cluster apply takes it"),
        ("- a\n", "is not the section of an application: it must be the keys under apps.NAME"),
        ("", "is empty: it must be the keys under apps.NAME"),
        ("token: {env: NOT_SET}\nintents: 1\n", "app.yml:1: token: the environment variable NOT_SET is not set"),
    ):
        file.write_text(text)
        with pytest.raises(CommandError) as caught:
            given(file=file, token_env=None)
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "file", "words"),
    [
        ("NOT_SET", None, "the environment variable NOT_SET is not set"),
        ("EMPTY", None, "the environment variable EMPTY is not set"),
        ("", None, "--token-env takes the name of an environment variable"),
        (TOKEN, None, "--token-env takes the name of an environment variable, and never the token itself"),
        (None, TOKEN, "--token-file takes the path of a file, and never the token itself"),
        (None, "/nowhere/token", "the file /nowhere/token cannot be read: No such file or directory"),
        (None, "/dev/zero", "the file /dev/zero cannot be read: it is a device"),
        ("BOT_TOKEN", "-", "give either --token-env or --token-file"),
        ("MFA", None, "this is not a bot token but a user's"),
    ],
)
def test_a_source_of_a_token_that_cannot_be_used_is_named_without_the_token(
    variable: str | None, file: str | None, words: str
) -> None:
    env = ENV | {"MFA": f"mfa.{TOKEN}"}
    with pytest.raises(CommandError) as caught:
        read_token(variable, Path(file) if file is not None else None, "Token", env)
    assert words in str(caught.value)
    assert TOKEN not in str(caught.value)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    for descriptor in (read, write):
        try:
            os.close(descriptor)
        except OSError:
            continue


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\n", "it is empty"),
        (b"one\ntwo\n", "it has several lines"),
        (b"\xff\xfe\n", "it is not text in UTF-8"),
        (b"x" * 20_000, "it is larger than 16384 bytes"),
    ],
)
def test_a_pipe_without_one_line_of_text_is_refused(pipe: tuple[int, int], content: bytes, words: str) -> None:
    os.write(pipe[1], content)
    os.close(pipe[1])
    with pytest.raises(ValueError, match=words):
        read_secret_stream(pipe[0])


def test_a_pipe_gives_its_line_and_a_silent_one_is_not_awaited_for_ever(pipe: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"its writer is silent for 0\.01 s"):
        read_secret_stream(pipe[0], timeout_s=0.01)
    os.write(pipe[1], f"{TOKEN}\n".encode())
    os.close(pipe[1])
    assert read_secret_stream(pipe[0]) == TOKEN


@pytest.mark.parametrize("argument", [TOKEN, f"token={TOKEN}", f"{TOKEN}=="])
def test_a_token_among_the_arguments_is_not_repeated(argument: str) -> None:
    with pytest.raises((CommandError, Invalid)) as caught:
        parse_changes([argument])
    assert TOKEN not in str(caught.value)
