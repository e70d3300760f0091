"""Errors between a reader and the cache; they contain no secret."""

import ssl
from collections.abc import Iterator
from typing import Literal

from redis import exceptions as rx

from sandwich_sdk.errors import ConsumerError

Reason = Literal[
    "no connection", "no answer", "tls", "refused login", "no permission", "loading", "not redis", "refused"
]
"""Why the cache is unavailable."""


class CacheUnavailable(ConsumerError):
    """The cache did not answer: whether the object exists is unknown.

    reason  the kind of failure, for programs
    server  host and port, or the socket's path; never the user or the password
    """

    def __init__(self, server: str, reason: Reason, detail: str) -> None:
        super().__init__(f"the cache at {server} is unavailable: {detail}")
        self.server = server
        self.reason: Reason = reason


def unavailable(server: str, timeout: float, error: BaseException) -> CacheUnavailable:
    """The CacheUnavailable for an error of redis-py. It contains only the error's type and Redis's error code."""
    reason, detail = _explained(timeout, error)
    return CacheUnavailable(server, reason, detail)


def _explained(timeout: float, error: BaseException) -> tuple[Reason, str]:
    if reason := tls_trouble(error):
        return "tls", f"TLS failed: {reason}"
    text = str(error)
    code = text.partition(" ")[0]
    match error:
        case rx.RedisClusterException() if inner := error.__cause__ or error.__context__:
            return _explained(timeout, inner)
        case rx.AuthenticationError() | rx.AuthorizationError() | rx.AuthenticationWrongNumberOfArgsError():
            return "refused login", "it refuses the user or the password"
        case rx.NoPermissionError():
            return "no permission", "the user lacks a permission to read; docs/guide/cache.md has the ACL rule"
        case rx.BusyLoadingError():
            return "loading", "it is still loading its data; try again soon"
        case rx.TimeoutError() | TimeoutError():
            return "no answer", f"no answer within {timeout:g} s"
        case rx.InvalidResponse():
            return "not redis", "the server there is not Redis"
        case rx.ConnectionError() if "not ready" in text:
            # redis-py's message for a new connection on which the server sends data before any request.
            return "not redis", "the server there is not Redis"
        case rx.ResponseError() if "DB index" in text:
            return "refused", "it has no database with that number"
        case rx.ResponseError() | rx.ClusterError():
            return "refused", f"it refuses ({code if code.isupper() else type(error).__name__})"
        case _:
            return "no connection", f"no connection ({type(error).__name__})"


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__


def tls_trouble(error: BaseException) -> str:
    """The TLS failure in an error, for an operator; "" if there is none."""
    for one in _causes(error):
        if isinstance(one, ssl.SSLCertVerificationError):
            return one.verify_message
        if isinstance(one, ssl.SSLError):
            return one.reason or "the handshake"
    return ""
