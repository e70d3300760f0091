"""Reads cluster.yml. All errors are reported together, each with the line and the path of the key.

No message repeats a value that may be a secret: pydantic's copy of the input is not used.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from pydantic import ValidationError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from sandwich_coordinator.app_options import option_problems, option_warnings, sharing_problems
from sandwich_coordinator.bot_token import check_token, shared_token_warning
from sandwich_coordinator.cli.yaml_text import YamlError, read_yaml
from sandwich_coordinator.config import AppConfig, ClusterConfig
from sandwich_coordinator.config_mistakes import KEY_SHOWN, KeyPath, dotted, mistakes
from sandwich_coordinator.config_values import SecretAbsent, SecretSource, Section
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
    """A valid file with its secrets read. The repr shows no secret.

    absent  why a secret could not be read here, by its path in the file: only where its absence is allowed
    """

    config: ClusterConfig
    tokens: Mapping[str, str] = field(repr=False)
    nats_password: str | None = field(repr=False)
    redis_url: str = field(repr=False)
    redis_password: str | None = field(repr=False)
    login_secret: str | None = field(repr=False)
    absent: Mapping[str, str] = field(default_factory=dict)
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


_Model = TypeVar("_Model", bound=Section)


def _parse(text: str, source: str) -> tuple[ClusterConfig, _Lines]:
    document, lines = _document(
        text, source, "is not a cluster file", "must be a mapping that starts with `version: 1`"
    )
    return _checked(ClusterConfig, document, lines, ()), lines


def _document(text: str, source: str, other: str, wanted: str) -> tuple[dict[str, Any], _Lines]:
    """The mapping in a file. `other`: what it is when it is none; `wanted`: what it should be. Raises ConfigError."""
    try:
        document, root = read_yaml(text)
    except YamlError as error:
        raise ConfigError([plain_text(f"{source}:{error.line}: {error}")]) from None
    lines = _Lines(source, root)
    if not isinstance(document, dict):
        raise ConfigError([plain_text(f"{source}:1: {'is empty' if document is None else other}: it {wanted}")])
    if any(not isinstance(key, str) for key in _keys(document)):
        raise ConfigError(lines.problems)
    return document, lines


def _checked(model: type[_Model], document: Mapping[str, Any], lines: _Lines, under: KeyPath) -> _Model:
    """The document as this model. `under`: where it belongs in a cluster file. Raises ConfigError."""
    try:
        config = model.model_validate(document)
    except ValidationError as error:
        found = mistakes(error, under)
        raise ConfigError(lines.problems + [lines.at(path[len(under) :], text) for path, text in found]) from None
    if lines.problems:
        raise ConfigError(lines.problems)
    return config


def _keys(value: Any) -> Iterator[object]:
    """Every key of every mapping in it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)


class _Reading:
    """Collects secrets, problems and warnings."""

    def __init__(self, lines: _Lines, env: Mapping[str, str], directory: Path) -> None:
        self._lines, self._env, self._directory = lines, env, directory
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self.absent: dict[str, str] = {}

    def secret(self, source: SecretSource | None, *path: str | int) -> str | None:
        if source is None:
            return None
        if source.literal is not None:
            self.warn(path, "the file contains the secret: {env: NAME} or {file: PATH} is safer")
        try:
            return source.read(self._env, self._directory)
        except SecretAbsent as error:
            self.absent[dotted(path)] = self._lines.at(path, str(error))
            return None
        except ValueError as error:
            self.problems.append(self._lines.at(path, str(error)))
            return None

    def warn(self, path: KeyPath, text: str) -> None:
        self.warnings.append(self._lines.at(path, text))

    def token(self, app: AppConfig, path: KeyPath) -> str | None:
        raw = self.secret(app.token, *path)
        if raw is None:
            return None
        try:
            token, warning = check_token(raw)
        except ValueError as error:
            self.problems.append(self._lines.at(path, str(error)))
            return None
        if warning:
            self.warn(path, warning)
        return token

    def tokens(self, apps: Mapping[str, AppConfig]) -> dict[str, str]:
        tokens: dict[str, str] = {}
        for name, app in apps.items():
            path = ("apps", name, "token")
            if privileged := privileged_names(app.intents):
                text = f"privileged: enable {', '.join(privileged)} in Discord's developer portal"
                self.warn(("apps", name, "intents"), text)
            token = self.token(app, path)
            if token is None:
                continue
            twin = next((other for other, known in tokens.items() if known == token), None)
            if twin:
                self.warn(path, shared_token_warning(twin))
            tokens[name] = token
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


def load_config(path: Path, env: Mapping[str, str], *, absence_allowed: bool = False) -> LoadedConfig:
    """Read, check and resolve a cluster file. Raises ConfigError with every problem found.

    `absence_allowed`: secrets whose environment variable is not set are left out: they may be stored already.
    """
    source = str(path)
    try:
        text = read_small_file(path, FILE_BYTES_MAX, pipe_allowed=True)
    except ValueError as error:
        raise ConfigError([plain_text(f"{source}: cannot be read: {error}")]) from None
    return parse_config(text, source=source, env=env, directory=path.parent, absence_allowed=absence_allowed)


@dataclass(frozen=True)
class LoadedApp:
    """The section of one application. `token`: None when the file has none. The repr shows no secret."""

    config: AppConfig
    token: str | None = field(repr=False)
    warnings: tuple[str, ...] = ()


NO_TOKEN = {"env": "TOKEN"}
"""In place of a token that is given elsewhere; it is not read."""


def load_app(path: Path, name: str, env: Mapping[str, str], *, with_token: bool) -> LoadedApp:
    """Read the section of application `name` from a file of its own; not `with_token`: its token is not read.

    Raises ConfigError with every problem found.
    """
    source = str(path)
    try:
        text = read_small_file(path, FILE_BYTES_MAX, pipe_allowed=True)
    except ValueError as error:
        raise ConfigError([plain_text(f"{source}: cannot be read: {error}")]) from None
    wanted = "must be the keys under apps.NAME in cluster.yml, such as intents: [GUILDS]"
    document, lines = _document(text, source, "is not the section of an application", wanted)
    if "apps" in document or "version" in document:
        raise ConfigError(
            [plain_text(f"{source}:1: is a whole cluster file: sandwich cluster apply takes it; here it {wanted}")]
        )
    config = _checked(AppConfig, {"token": NO_TOKEN, **document}, lines, ("apps", name))
    if "token" not in document or not with_token:
        return LoadedApp(config, None)
    reading = _Reading(lines, env, path.parent)
    token = reading.token(config, ("token",))
    if problems := [*reading.problems, *reading.absent.values()]:
        raise ConfigError(problems)
    return LoadedApp(config, token, tuple(reading.warnings))


def parse_config(
    text: str, *, source: str, env: Mapping[str, str], directory: Path, absence_allowed: bool = False
) -> LoadedConfig:
    """As `load_config`, from text; files of secrets are relative to `directory`. Raises ConfigError."""
    config, lines = _parse(text, source)
    reading = _Reading(lines, env, directory)
    tokens = reading.tokens(config.apps)
    reading.options(config.apps)
    nats_password = reading.secret(config.nats.password, "nats", "password")
    redis_password = reading.secret(config.redis.password, "redis", "password")
    login = config.api.discord_login
    login_secret = reading.secret(login.client_secret, "api", "discord_login", "client_secret") if login else None
    url, url_password = _split_password(config.redis.url.get_secret_value())
    if url_password:
        reading.warn(("redis", "url"), "contains a password: password: {env: NAME} is safer")
    if reading.problems or (reading.absent and not absence_allowed):
        raise ConfigError([*reading.problems, *reading.absent.values()])
    return LoadedConfig(
        config=config,
        tokens=tokens,
        nats_password=nats_password,
        redis_url=url,
        redis_password=redis_password or url_password,
        login_secret=login_secret,
        absent=reading.absent,
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
