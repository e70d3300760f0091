"""Reads cluster.yml. All errors are reported together, each with the line and the path of the key.

No message repeats a value that may be a secret: pydantic's copy of the input is not used.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import ValidationError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from sandwich_coordinator.app_options import option_problems, option_warnings, sharing_problems
from sandwich_coordinator.cli.yaml_text import YamlError, read_yaml
from sandwich_coordinator.config import AppConfig, ClusterConfig
from sandwich_coordinator.config_mistakes import KEY_SHOWN, KeyPath, dotted, mistakes
from sandwich_coordinator.config_values import SecretSource
from sandwich_coordinator.intents import privileged_names
from sandwich_coordinator.small_files import read_small_file
from sandwich_sdk.wire.plain_text import plain_text

FILE_BYTES_MAX = 4 * 1024 * 1024
PROBLEMS_MAX = 100
"""More errors of a file are counted, not shown."""


class ConfigError(Exception):
    """The file cannot be used. `problems` are one line each: file, line, path, what is wrong."""

    def __init__(self, problems: list[str]) -> None:
        shown = problems[:PROBLEMS_MAX]
        if len(problems) > PROBLEMS_MAX:
            shown.append(f"and {len(problems) - PROBLEMS_MAX} more mistakes")
        super().__init__("\n".join(shown))
        self.problems = problems


_KEY_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")


@dataclass(frozen=True)
class LoadedConfig:
    """A valid file with its secrets read. `lines` maps a path in the file to its line. The repr shows no secret."""

    config: ClusterConfig
    tokens: Mapping[str, str] = field(repr=False)
    nats_password: str | None = field(repr=False)
    redis_url: str = field(repr=False)
    redis_password: str | None = field(repr=False)
    warnings: tuple[str, ...] = ()


class _Lines:
    """Line of each path of a YAML document, and its duplicate keys."""

    def __init__(self, source: str, root: Node | None) -> None:
        self.source = source
        self.problems: list[str] = []
        self._lines: dict[KeyPath, int] = {(): 1}
        if root is not None:
            self._walk(root, ())

    def _walk(self, node: Node, path: KeyPath) -> None:
        if isinstance(node, MappingNode):
            for key, value in node.value:
                name = key.value if isinstance(key, ScalarNode) else "?"
                inner = (*path, name)
                if key.tag not in _KEY_TAGS:
                    line = key.start_mark.line + 1
                    self.problems.append(self.at(path, f"the key {name[:KEY_SHOWN]} is not text: quote it", line))
                if inner in self._lines:
                    self.problems.append(self.at(inner, f"given twice (again on line {key.start_mark.line + 1})"))
                self._lines[inner] = key.start_mark.line + 1
                self._walk(value, inner)
        elif isinstance(node, SequenceNode):
            for index, value in enumerate(node.value):
                self._lines[(*path, index)] = value.start_mark.line + 1
                self._walk(value, (*path, index))

    def at(self, path: KeyPath, message: str, line: int | None = None) -> str:
        """`message` with the nearest known line of `path`."""
        known = path
        while known not in self._lines:
            known = known[:-1]
        name = dotted(path)
        return plain_text(f"{self.source}:{line or self._lines[known]}: {name + ': ' if name else ''}{message}")


def _parse(text: str, source: str) -> tuple[ClusterConfig, _Lines]:
    try:
        document, root = read_yaml(text)
    except YamlError as error:
        raise ConfigError([plain_text(f"{source}:{error.line}: {error}")]) from None
    lines = _Lines(source, root)
    if not isinstance(document, dict):
        what = "is empty: it" if document is None else "is not a cluster file: it"
        raise ConfigError([plain_text(f"{source}:1: {what} must be a mapping that starts with `version: 1`")])
    if any(not isinstance(key, str) for key in _keys(document)):
        raise ConfigError(lines.problems)
    try:
        config = ClusterConfig.model_validate(document)
    except ValidationError as error:
        raise ConfigError(lines.problems + [lines.at(path, text) for path, text in mistakes(error)]) from None
    if lines.problems:
        raise ConfigError(lines.problems)
    return config, lines


def _keys(value: Any) -> Iterator[object]:
    """Every key of every mapping in it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)


def check_token(token: str) -> tuple[str, str | None]:
    """A bot token as used, and a warning about its form in the file. Raises ValueError; never shows the token."""
    warning = None
    if token[:4].lower() == "bot ":
        token, warning = token[4:].strip(), "the token starts with 'Bot ': that prefix was left out"
    if token.lower().startswith(("mfa.", "bearer ")):
        raise ValueError("this is not a bot token but a user's: take the one from the Bot page of the developer portal")
    if not token or not token.isascii() or any(character.isspace() for character in token):
        raise ValueError("the token is empty, or has spaces or other characters that are not allowed")
    return token, warning


class _Reading:
    """Collects secrets, problems and warnings."""

    def __init__(self, lines: _Lines, env: Mapping[str, str], directory: Path) -> None:
        self._lines, self._env, self._directory = lines, env, directory
        self.problems: list[str] = []
        self.warnings: list[str] = []

    def secret(self, source: SecretSource | None, *path: str | int) -> str | None:
        if source is None:
            return None
        if source.literal is not None:
            self.warn(path, "the file contains the secret: {env: NAME} or {file: PATH} is safer")
        try:
            return source.read(self._env, self._directory)
        except ValueError as error:
            self.problems.append(self._lines.at(path, str(error)))
            return None

    def warn(self, path: KeyPath, text: str) -> None:
        self.warnings.append(self._lines.at(path, text))

    def tokens(self, apps: Mapping[str, AppConfig]) -> dict[str, str]:
        tokens: dict[str, str] = {}
        for name, app in apps.items():
            path = ("apps", name, "token")
            raw = self.secret(app.token, *path)
            if raw is None:
                continue
            try:
                token, warning = check_token(raw)
            except ValueError as error:
                self.problems.append(self._lines.at(path, str(error)))
                continue
            if warning:
                self.warn(path, warning)
            twin = next((other for other, known in tokens.items() if known == token), None)
            if twin:
                self.problems.append(self._lines.at(path, f"is also the token of {twin!r}: one bot, one application"))
            tokens[name] = token
            if privileged := privileged_names(app.intents):
                text = f"privileged: enable {', '.join(privileged)} in Discord's developer portal"
                self.warn(("apps", name, "intents"), text)
        return tokens

    def options(self, apps: Mapping[str, AppConfig]) -> None:
        """Check the cache, event and invite options of applications against their intents and each other."""
        for name, app in apps.items():
            cache, events = app.cache.spec(), app.events.spec()
            for key, text in option_problems(cache, events, app.intents):
                self.problems.append(self._lines.at(_path(name, key), text))
            for key, text in option_warnings(cache, events, app.invites.spec(), app.intents):
                self.warn(_path(name, key), text)
        for name, key, text in sharing_problems({name: app.cache.spec() for name, app in apps.items()}):
            self.problems.append(self._lines.at(_path(name, key), text))


def _path(app: str, dotted: str) -> KeyPath:
    return "apps", app, *dotted.split(".")


def load_config(path: Path, env: Mapping[str, str]) -> LoadedConfig:
    """Read, check and resolve a cluster file. Raises ConfigError with every problem found."""
    source = str(path)
    try:
        text = read_small_file(path, FILE_BYTES_MAX, pipe_allowed=True)
    except ValueError as error:
        raise ConfigError([plain_text(f"{source}: cannot be read: {error}")]) from None
    return parse_config(text, source=source, env=env, directory=path.parent)


def parse_config(text: str, *, source: str, env: Mapping[str, str], directory: Path) -> LoadedConfig:
    """As `load_config`, from text; files of secrets are relative to `directory`. Raises ConfigError."""
    config, lines = _parse(text, source)
    reading = _Reading(lines, env, directory)
    tokens = reading.tokens(config.apps)
    reading.options(config.apps)
    nats_password = reading.secret(config.nats.password, "nats", "password")
    redis_password = reading.secret(config.redis.password, "redis", "password")
    url, url_password = _split_password(config.redis.url.get_secret_value())
    if url_password:
        reading.warn(("redis", "url"), "contains a password: password: {env: NAME} is safer")
    if reading.problems:
        raise ConfigError(reading.problems)
    return LoadedConfig(
        config=config,
        tokens=tokens,
        nats_password=nats_password,
        redis_url=url,
        redis_password=redis_password or url_password,
        warnings=tuple(reading.warnings),
    )


def _split_password(url: str) -> tuple[str, str | None]:
    parts = urlsplit(url)
    if not parts.password:
        return url, None
    address = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{parts.username}@{address}" if parts.username else address).geturl(), unquote(
        parts.password
    )
