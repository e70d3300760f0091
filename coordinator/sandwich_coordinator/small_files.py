"""Reads small files that an operator names, whatever the path refers to.

An endless device, a pipe without a writer, a directory and a very large file are refused: none of them may block a
command or a node, or exhaust its memory.
"""

import os
import select
import stat
import time
from collections.abc import Callable, Iterable
from pathlib import Path

SECRET_BYTES_MAX = 16 * 1024
PIPE_TIMEOUT_S = 10.0
_CHUNK_BYTES = 64 * 1024
_KINDS = ((stat.S_ISDIR, "a directory"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
          (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))  # fmt: skip


def read_small_file(
    path: Path,
    bytes_max: int,
    *,
    pipe_allowed: bool = False,
    pipe_timeout_s: float = PIPE_TIMEOUT_S,
    check: Callable[[os.stat_result], None] | None = None,
) -> str:
    """The text (UTF-8) of a regular file of at most `bytes_max`; a byte order mark at its start is removed.

    `pipe_allowed`: also read a pipe (`-f <(command)`), for at most `pipe_timeout_s`.
    `check` is called with the status of the opened file, and may refuse it.
    Raises ValueError with the reason only: the caller adds the file's name. It never contains the content.
    """
    descriptor = _opened(path, pipe_allowed=pipe_allowed)
    try:
        if check is not None:
            check(os.fstat(descriptor))
        content = _read(descriptor, bytes_max, pipe_timeout_s)
    except OSError as error:
        raise ValueError(error.strerror or type(error).__name__) from None
    finally:
        os.close(descriptor)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("it is not text in UTF-8") from None


def check_readable(path: Path) -> None:
    """Raises ValueError with the reason when this process cannot read a regular file there; for files that libraries
    read, which do not say which one it was.
    """
    os.close(_opened(path, pipe_allowed=False))


Stamp = tuple[tuple[int, int, int], ...]
"""Of files: it differs when one was changed or replaced. Empty: one is not there."""


def stamp(paths: Iterable[Path]) -> Stamp:
    """The present stamp of files; symbolic links are followed."""
    try:
        found = [path.stat() for path in paths]
    except OSError:
        return ()
    return tuple((each.st_mtime_ns, each.st_size, each.st_ino) for each in found)


def _opened(path: Path, *, pipe_allowed: bool) -> int:
    """A descriptor of a regular file or pipe. Raises ValueError with the reason."""
    try:
        # Not blocking: opening a pipe without a writer would wait forever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ValueError(f"{error.strerror or type(error).__name__}{_whose(path, error)}") from None
    except ValueError:
        raise ValueError("its name has a character that is not allowed in paths") from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode) and not (stat.S_ISFIFO(mode) and pipe_allowed):
        os.close(descriptor)
        what = next((name for is_kind, name in _KINDS if is_kind(mode)), "no regular file")
        raise ValueError(f"it is {what}, not a regular file")
    return descriptor


def _whose(path: Path, error: OSError) -> str:
    """Of a file that may not be opened: its owner, which is what is wrong with most mounted ones."""
    if not isinstance(error, PermissionError):
        return ""
    try:
        owner = path.stat().st_uid
    except OSError:
        return f": user {os.geteuid()} may not enter its directory"
    return f": it belongs to user {owner}, and this process is user {os.geteuid()}"


def read_secret_file(path: Path) -> str:
    """The one line of text in a file with a secret, without surrounding space. Raises ValueError with the reason."""
    return check_secret(read_small_file(path, SECRET_BYTES_MAX))


def read_secret_stream(descriptor: int, *, timeout_s: float = PIPE_TIMEOUT_S) -> str:
    """The one line of text from an open pipe or file, as `read_secret_file`. Raises ValueError with the reason."""
    content = b""
    ends_at = time.monotonic() + timeout_s
    try:
        # Not by its path, which another user's pipe refuses (sudo); and its blocking mode is shared with its writer.
        while select.select([descriptor], [], [], max(0.0, ends_at - time.monotonic()))[0]:
            chunk = os.read(descriptor, _CHUNK_BYTES)
            content += chunk
            if len(content) > SECRET_BYTES_MAX:
                raise ValueError(f"it is larger than {SECRET_BYTES_MAX} bytes")
            if not chunk:
                return check_secret(content.decode("utf-8-sig"))
    except OSError as error:
        raise ValueError(error.strerror or type(error).__name__) from None
    except UnicodeDecodeError:
        raise ValueError("it is not text in UTF-8") from None
    raise ValueError(f"its writer is silent for {timeout_s:g} s")


def check_secret(text: str) -> str:
    """A secret without surrounding space. Raises ValueError for text that cannot be a secret; never shows it."""
    text = text.strip()
    if not text:
        raise ValueError("it is empty")
    if not text.isprintable():
        raise ValueError("it has several lines or control characters, which are not allowed in a secret")
    return text


def _read(descriptor: int, bytes_max: int, pipe_timeout_s: float) -> bytes:
    ends_at = time.monotonic() + pipe_timeout_s
    content = b""
    while len(content) <= bytes_max:
        try:
            chunk = os.read(descriptor, _CHUNK_BYTES)
        except BlockingIOError:
            left = ends_at - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                raise ValueError(f"its writer is silent for {pipe_timeout_s:g} s") from None
            continue
        if not chunk:
            return content
        content += chunk
    raise ValueError(f"it is larger than {bytes_max} bytes")
