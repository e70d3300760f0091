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
_OTHER_CA = frozenset({7, 18, 19, 20, 21})
"""OpenSSL's X509_V_ERR codes: a wrong signature, self-signed, and no issuer that is trusted."""
_CLIENT_REFUSED = frozenset(
    {
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "TLSV1_ALERT_UNKNOWN_CA",
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    }
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
        other = error.verify_code in _OTHER_CA
        return f"{error.verify_message}{' (a CA that is not trusted here made its certificate)' if other else ''}"
    said = getattr(error, "reason", None) or type(error).__name__
    return f"it refuses the client certificate, or that there is none ({said})" if said in _CLIENT_REFUSED else said
