"""Errors of connections in an operator's words: what happened, and where. Nothing of headers, URLs or bodies."""

import errno
import os
import ssl

import aiohttp

_NUMBERS = (
    (ConnectionResetError, errno.ECONNRESET),
    (ConnectionRefusedError, errno.ECONNREFUSED),
    (ConnectionAbortedError, errno.ECONNABORTED),
    (BrokenPipeError, errno.EPIPE),
)


class Redirected(aiohttp.ClientError):
    """The server wants the request made elsewhere. A token is not taken there."""


def network_words(error: BaseException) -> str:
    """Such as "connection refused at etcd.example:2379"; for an unknown kind its name."""
    match error:
        case aiohttp.WSServerHandshakeError() | aiohttp.ClientResponseError():
            return f"HTTP status {error.status}"
        case aiohttp.ClientConnectorDNSError():
            return f"the name {error.host} cannot be resolved ({_os_words(error.os_error)})"
        case aiohttp.ClientConnectorCertificateError():
            return f"TLS failed with {error.host}:{error.port}: {_tls_words(error.certificate_error)}"
        case aiohttp.ClientConnectorSSLError():
            return f"TLS failed with {error.host}:{error.port}: {_tls_words(error.os_error)}"
        case aiohttp.ClientConnectorError():
            return f"{_os_words(error.os_error)} at {error.host}:{error.port}"
        case Redirected():
            return "the server redirects elsewhere, and no token is sent there"
        case TimeoutError():
            return "no answer in time"
        case aiohttp.ServerDisconnectedError():
            return "the server closed the connection"
        case OSError():
            return _os_words(error)
        case _:
            return type(error).__name__


def _os_words(error: OSError) -> str:
    # asyncio's own text repeats the address in Python's form, and it raises some errors without a number.
    number = error.errno or next((code for kind, code in _NUMBERS if isinstance(error, kind)), 0)
    return os.strerror(number).lower() if number > 0 else error.strerror or type(error).__name__


def _tls_words(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return getattr(error, "reason", None) or type(error).__name__
