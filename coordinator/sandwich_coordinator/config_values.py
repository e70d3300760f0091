"""How values are written in cluster.yml: names, durations, sizes, and secrets that stay secret. Pure."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, SecretStr, model_validator

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)(B|KiB|MiB|GiB|TiB|KB|MB|GB|TB)")
_SIZE_UNITS = {"B": 1} | {f"{letter}iB": 1024**n for n, letter in enumerate("KMGT", 1)}
_SIZE_UNITS |= {f"{letter}B": 1000**n for n, letter in enumerate("KMGT", 1)}


def parse_duration(value: object) -> float:
    """Seconds from "24h", "90s", "1.5m", "250ms" or 0. Raises ValueError: a bare number has no unit."""
    if value == 0 and not isinstance(value, bool):
        return 0.0
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("write a duration with its unit: 250ms, 5s, 10m, 24h or 7d")
    return float(match[1]) * _DURATION_UNITS[match[2]]


def parse_size(value: object) -> int:
    """Bytes from "10GiB", "512MB" or a whole number of bytes. Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("write a size with its unit: 512MiB, 10GiB or 2GB")
    return int(float(match[1]) * _SIZE_UNITS[match[2]])


def check_name(value: str) -> str:
    """Return `value` when it may name a cluster or an application (it becomes part of keys and subjects)."""
    if NAME.fullmatch(value) is None:
        raise ValueError("must be 1 to 32 characters of a-z, 0-9, '_' and '-', and start with a letter or a digit")
    return value


def _secret_source(value: object) -> object:
    return {"literal": value} if isinstance(value, str) else value


def seconds(low: float, high: float) -> Any:
    """A check that a duration is within these bounds."""

    def check(value: float) -> float:
        if not low <= value <= high:
            raise ValueError(f"must be from {low:g}s to {high:g}s")
        return value

    return AfterValidator(check)


Duration = Annotated[float, BeforeValidator(parse_duration)]
Size = Annotated[int, BeforeValidator(parse_size)]
Name = Annotated[str, AfterValidator(check_name)]


class Section(BaseModel):
    """A part of the file: immutable, unknown keys refused, values never shown."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class SecretSource(Section):
    """Where a secret comes from: an environment variable, a file, or (with a warning) the text itself."""

    env: str | None = None
    file: Path | None = None
    literal: SecretStr | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if [self.env, self.file, self.literal].count(None) != 2:
            raise ValueError("give exactly one of {env: NAME} and {file: PATH}")
        return self

    def read(self, env: Mapping[str, str], directory: Path) -> str:
        """The secret; a relative file is looked up in `directory`. Raises ValueError saying what is missing."""
        if self.literal is not None:
            return self.literal.get_secret_value().strip()
        if self.env is not None:
            if not env.get(self.env, "").strip():
                raise ValueError(f"the environment variable {self.env} is not set")
            return env[self.env].strip()
        path = directory / (self.file or "")
        try:
            text = path.read_text().strip()
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise ValueError(f"the file {path} cannot be read: {reason}") from None
        if not text:
            raise ValueError(f"the file {path} is empty")
        return text


Secret = Annotated[SecretSource, BeforeValidator(_secret_source)]
