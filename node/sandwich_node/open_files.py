"""File descriptors: how many a process may have, how many of them shards may use, and what to say when there are none.

A shard holds one socket. A worker keeps some descriptors back for NATS, Redis and the resolver: without them the shards
that have a socket could not publish. A shard that gets none waits and tries again.
"""

import errno
import resource
from collections.abc import Iterator

from sandwich_coordinator.problems import KINDS, Code, Problem, problem

RESERVE = 64
"""Descriptors of a worker that no shard gets: NATS, Redis, REST, the channel to the agent, the interpreter's own."""
LIMIT_MAX = 1_048_576
"""More is not asked for, where the hard limit is none."""
REMEDY = KINDS[Code.TOO_FEW_FILES].advice
_SHORT = (errno.EMFILE, errno.ENFILE)


def raise_limit() -> int:
    """Raise this process's soft limit to its hard limit, which child processes inherit. Returns what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = LIMIT_MAX if hard == resource.RLIM_INFINITY else min(hard, LIMIT_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            # A sandbox may forbid it: then the shards have to do with what there is.
            return soft
        return wanted
    return LIMIT_MAX if soft == resource.RLIM_INFINITY else soft


def sockets_for_shards(limit: int) -> int:
    """How many shards of one worker can have a socket, at this limit."""
    return max(1, limit - min(RESERVE, limit // 2))


def shortage(error: BaseException) -> str:
    """What to say of an error that comes of too few descriptors; "" for any other."""
    for found in _causes(error):
        if isinstance(found, OSError) and found.errno in _SHORT:
            if found.errno == errno.ENFILE:
                return "no file descriptor is free on this machine (fs.file-max)"
            limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            return f"no file descriptor is free: this process may have {limit} (RLIMIT_NOFILE); {REMEDY}"
    return ""


def _causes(error: BaseException, depth: int = 8) -> Iterator[BaseException]:
    """The error, what it wraps, and what it came from."""
    yield error
    wrapped = getattr(error, "os_error", None)
    for inner in (wrapped, error.__cause__, error.__context__):
        if isinstance(inner, BaseException) and depth:
            yield from _causes(inner, depth - 1)


def too_few(node: str, planned: int, workers: int, limit: int) -> Problem | None:
    """Whether a node with so many planned shards has too few descriptors. Pure."""
    most = sockets_for_shards(limit) * workers
    if planned <= most:
        return None
    return problem(
        Code.TOO_FEW_FILES,
        f"node/{node}",
        f"{planned} shards are planned here and {workers} worker processes with {limit} file descriptors each "
        f"(RLIMIT_NOFILE) have room for {most}, so the others wait",
    )


class SocketRoom:
    """The sockets that the shards of one worker may have at the same time."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._taken = 0

    def take(self) -> str:
        """Take one; "" when there was one, else why there is none."""
        if self._taken < self.most:
            self._taken += 1
            return ""
        return f"no file descriptor is free: the limit of {self.most} sockets for shards is reached; {REMEDY}"

    def give_back(self) -> None:
        """One that was taken is closed."""
        self._taken -= 1
