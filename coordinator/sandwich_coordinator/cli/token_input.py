"""Reads a bot token: from the environment, a file, a pipe, or a terminal without echo. Never from an argument."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from sandwich_coordinator.bot_token import check_token, looks_like_token
from sandwich_coordinator.cli.errors import CommandError
from sandwich_coordinator.cli.output import warn
from sandwich_coordinator.config_values import SecretSource
from sandwich_coordinator.small_files import read_secret_stream

STANDARD_INPUT = Path("-")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")


def read_token(variable: str | None, file: Path | None, prompt: str, env: Mapping[str, str]) -> str:
    """The token from this environment variable or file; `-` or none: from standard input. Raises CommandError (1)."""
    if variable is not None and file is not None:
        raise CommandError("give either --token-env or --token-file")
    if variable is not None and _VARIABLE.fullmatch(variable) is None:
        raise CommandError("--token-env takes the name of an environment variable, and never the token itself")
    if file is not None and looks_like_token(str(file)):
        raise CommandError("--token-file takes the path of a file, and never the token itself")
    try:
        if variable is not None:
            raw = SecretSource(env=variable).read(env, Path())
        elif file is not None and file != STANDARD_INPUT:
            raw = SecretSource(file=file).read(env, Path())
        else:
            raw = _from_terminal(prompt) if sys.stdin.isatty() else _from_pipe()
        token, warning = check_token(raw)
    except ValueError as error:
        raise CommandError(f"the token cannot be used: {error}", 1) from None
    if warning:
        warn(warning)
    return token


def read_secret(what: str, option: str, variable: str | None, file: Path | None, env: Mapping[str, str]) -> str:
    """Another secret, as `read_token` reads a token: from `--<option>-env`, `--<option>-file`, a pipe or a terminal.

    Raises CommandError (1).
    """
    if variable is not None and file is not None:
        raise CommandError(f"give either --{option}-env or --{option}-file")
    if variable is not None and _VARIABLE.fullmatch(variable) is None:
        raise CommandError(f"--{option}-env takes the name of an environment variable, and never {what} itself")
    try:
        if variable is not None:
            return SecretSource(env=variable).read(env, Path())
        if file is not None and file != STANDARD_INPUT:
            return SecretSource(file=file).read(env, Path())
        return _from_terminal(what) if sys.stdin.isatty() else _from_pipe(option)
    except ValueError as error:
        raise CommandError(f"{what} cannot be used: {error}", 1) from None


def _from_terminal(prompt: str) -> str:
    # Imported here: only this way of reading needs it.
    import getpass

    try:
        return getpass.getpass(f"{prompt} (not shown): ").strip()
    except EOFError:
        raise CommandError("nothing was given", 1) from None


def _from_pipe(option: str = "token") -> str:
    try:
        return read_secret_stream(sys.stdin.fileno())
    except (OSError, ValueError) as error:
        raise ValueError(
            f"it is read from standard input (else say --{option}-env or --{option}-file): {error}"
        ) from None
