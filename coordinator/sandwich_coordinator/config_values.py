"""Values in cluster.yml: names, durations, sizes and secrets. Pure."""

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from sandwich_coordinator.small_files import check_secret, read_secret_file

T = TypeVar("T")
SIZE_MAX = 2**63 - 1
"""JetStream stores sizes as signed 64-bit numbers."""
PATH_CHARACTERS_MAX = 4096
NUMBER_CHARACTERS_MAX = 32
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,3})?)%")
RESERVE_MAX = 100_000
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(B|KiB|MiB|GiB|TiB|KB|MB|GB|TB)")
_SIZE_UNITS = {"B": 1} | {f"{letter}iB": 1024**n for n, letter in enumerate("KMGT", 1)}
_SIZE_UNITS |= {f"{letter}B": 1000**n for n, letter in enumerate("KMGT", 1)}


def parse_duration(value: object) -> float:
    """Seconds from "24h", "90s", "1.5m", "250ms" or 0. Raises ValueError: a bare number has no unit."""
    if type(value) in (int, float) and value == 0:
        return 0.0
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("write a duration with its unit: 250ms, 5s, 10m, 24h or 7d")
    _check_digits(match[1])
    return float(match[1]) * _DURATION_UNITS[match[2]]


def parse_size(value: object) -> int:
    """Bytes from "10GiB", "512MB" or a whole number of bytes. Raises ValueError."""
    if type(value) is int and value >= 0:
        return _bounded_size(value)
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("write a size with its unit: 512MiB, 10GiB or 2GB")
    _check_digits(match[1])
    return _bounded_size(int(Decimal(match[1]) * _SIZE_UNITS[match[2]]))


def _check_digits(number: str) -> None:
    if len(number) > NUMBER_CHARACTERS_MAX:
        raise ValueError(f"has a number of more than {NUMBER_CHARACTERS_MAX} characters")


def _bounded_size(value: int) -> int:
    if value > SIZE_MAX:
        raise ValueError("is too large: sizes end below 8388608TiB")
    return value


def check_reserve(value: object) -> object:
    """Return `value` when it says how many session starts are reserved: a number, or a part of the total ("20%")."""
    reserve_of(value)
    return value


def reserve_of(value: object) -> tuple[int, float]:
    """A number of session starts and a percentage, one of which is 0. Raises ValueError."""
    if type(value) is int and 0 <= value <= RESERVE_MAX:
        return value, 0.0
    match = _PERCENT.fullmatch(value) if isinstance(value, str) else None
    if match is None or float(match[1]) > 100:
        raise ValueError(f"must be a number of session starts from 0 to {RESERVE_MAX}, or a percentage such as 20%")
    return 0, float(match[1])


def check_name(value: str) -> str:
    """Return `value` when it may name a cluster or an application (it is part of keys and subjects)."""
    if NAME.fullmatch(value) is None:
        raise ValueError("must be 1 to 32 characters of a-z, 0-9, '_' and '-', and start with a letter or a digit")
    return value


def _secret_source(value: object) -> object:
    if isinstance(value, str):
        return {"literal": value}
    if isinstance(value, dict | SecretSource):
        return value
    raise ValueError("must be {env: NAME} or {file: PATH}")


def _path(value: object) -> Path:
    if isinstance(value, Path):
        return value
    if not isinstance(value, str):
        raise ValueError("must be a path, as text: put it in quotes")
    if not value or "\0" in value or len(value) > PATH_CHARACTERS_MAX:
        raise ValueError(f"must be a path of 1 to {PATH_CHARACTERS_MAX} characters")
    return Path(value)


def _as_tuple(value: object) -> tuple[Any, ...]:
    if isinstance(value, list | tuple):
        return tuple(value)
    raise ValueError(f"must be a list, such as [{value}]" if _is_short_name(value) else "must be a list: [A, B]")


def _is_short_name(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[A-Z0-9_*]{1,64}", value) is not None


def _number(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise ValueError("must be a number")


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
FilePath = Annotated[Path, BeforeValidator(_path)]
Number = Annotated[float, BeforeValidator(_number)]
ListOf = Annotated[tuple[T, ...], BeforeValidator(_as_tuple)]


class Section(BaseModel):
    """A part of the file: immutable, unknown keys refused, values never shown.

    Strict: otherwise pydantic accepts `true` as 1, "3" as 3 and "yes" as true.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, strict=True)


class SecretAbsent(ValueError):
    """The environment variable of a secret is not set, which is no mistake where the secret is stored already."""


class SecretSource(Section):
    """The source of a secret: an environment variable, a file, or (with a warning) the text itself."""

    env: str | None = Field(default=None, min_length=1, max_length=256)
    file: FilePath | None = None
    literal: SecretStr | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if [self.env, self.file, self.literal].count(None) != 2:
            raise ValueError("give exactly one of {env: NAME} and {file: PATH}")
        return self

    def read(self, env: Mapping[str, str], directory: Path) -> str:
        """The secret; a relative file is read from `directory`. Raises ValueError (SecretAbsent)."""
        if self.literal is not None:
            return _checked(self.literal.get_secret_value(), "the secret in the file")
        if self.env is not None:
            if not env.get(self.env, "").strip():
                raise SecretAbsent(f"the environment variable {self.env} is not set")
            return _checked(env[self.env], f"the environment variable {self.env}")
        path = directory / (self.file or "")
        try:
            return read_secret_file(path)
        except ValueError as error:
            raise ValueError(f"the file {path} cannot be read: {error}") from None


def _checked(text: str, where: str) -> str:
    try:
        return check_secret(text)
    except ValueError as error:
        raise ValueError(f"{where} cannot be used: {error}") from None


Secret = Annotated[SecretSource, BeforeValidator(_secret_source)]
